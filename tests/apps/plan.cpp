#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/apps/run_folder.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

PlanArguments arguments(const Folder& folder, int ranks, std::vector<std::string> overrides = {}) {
  PlanArguments a;
  a.config = (folder.path / "config.toml").string();
  a.ranks = ranks;
  a.overrides = std::move(overrides);
  a.json = (folder.path / "plan.json").string();
  return a;
}

}  // namespace

TEST_CASE("plan: every layout of a job, and for one rank what --dry-run says") {
  const Folder folder;
  const auto figures = [&] { return nlohmann::json::parse(contents_of((folder.path / "plan.json").string())); };
  {
    const Quiet quiet((folder.path / "out").string());
    CHECK(plan(arguments(folder, 4)) == 0);
    CHECK(contains(quiet.text(), "on 4 ranks: 1 of a micro-batch's 4 sequences each, 1 micro-batch a step, cpu, fp32"));
    CHECK(contains(quiet.text(), "*+ 4 x 1         yes"));
  }
  const auto four = figures();
  CHECK(four["layouts"].size() == 6);
  for (const auto& l : four["layouts"]) {
    CHECK((l["bytes_sent_in_a_step"]["masters"] > 0) == l["shard_optimizer"]);
    CHECK((l["bytes_sent_in_a_step"]["rows_out"] > 0) == (l["expert"] > 1));
    CHECK((l["memory"]["exchange"] > 0) == (l["expert"] > 1));
  }
  const Quiet quiet((folder.path / "out").string());
  CHECK(plan(arguments(folder, 1)) == 0);
  const auto one = figures();
  REQUIRE(one["layouts"].size() == 1);
  TrainArguments dry = folder.run("run");
  dry.dry_run = true;
  CHECK(train(dry) == 0);
  for (const char* part : {"arena", "parameters", "gradients", "optimizer", "text", "total"}) {
    const std::string bytes = std::to_string(one["layouts"][0]["memory"][part].get<int64_t>()) + "\n";
    CHECK_MESSAGE(contains(quiet.text(), " " + bytes), part);
  }
}

TEST_CASE("plan: what cannot be is said before anything is built") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(user_error([&] { plan(arguments(folder, 3)); }).find("4 sequences do not divide over 3 ranks") !=
        std::string::npos);
  CHECK(user_error([&] { plan(arguments(folder, 0)); }).find("expected at least 1") != std::string::npos);
  CHECK(user_error([&] { plan(arguments(folder, 2, {"model.width=no"})); }).find("model.width") != std::string::npos);
}

TEST_CASE("plan: for GPUs that are not here, on the CPU") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  PlanArguments a = arguments(folder, 2, {"device=cuda", "precision=bf16"});
  a.memory_gib = 1e-6;
  CHECK(plan(a) == 0);
  CHECK(contains(quiet.text(), "cuda, bf16"));
  CHECK(contains(quiet.text(), "too much"));
}
