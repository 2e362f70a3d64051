#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "apps/causal.h"
#include "core/copy.h"
#include "tests/apps/run_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("generate: the prompt and as many tokens as asked for, beyond the context, the same for a seed") {
  const Folder folder;
  const auto once = [&](uint64_t seed) {
    const Quiet quiet((folder.path / "out").string());
    GenerateArguments a;
    a.checkpoint = (folder.path / "run").string();
    a.prompt = "The ";
    a.sampling.tokens = 40;  // the context is 16
    a.sampling.seed = seed;
    CHECK(generate_text(a) == 0);
    return quiet.text();
  };
  {
    const Quiet quiet((folder.path / "train").string());
    CHECK(train(folder.run("run")) == 0);
  }
  const std::string first = once(1);
  CHECK(first.starts_with("The "));
  CHECK(first.size() > 30);
  CHECK(first == once(1));
  CHECK(first != once(2));
}

TEST_CASE("generate: only causally, and one token at a time as all at once") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("choice", {"train.steps=4"})) == 0);
  GenerateArguments a;
  a.checkpoint = (folder.path / "choice").string();
  a.overrides = {"moe.router.strategy=unified"};
  CHECK_THROWS_WITH_AS(generate_text(a), doctest::Contains("layers 0 to 1 (unified)"), UserError);
  CHECK_THROWS_WITH_AS(generate_text(a), doctest::Contains("agon calibrate"), UserError);

  std::ofstream(folder.path / "config.toml", std::ios::app)
      << "[[moe.layer]]\nindex = 1\nstrategy = \"expert_choice\"\n";
  CHECK(train(folder.run("run", {"train.sample_every=6", "train.sample_tokens=30"})) == 0);
  const auto comm = make_self_communicator();
  LoadedModel loaded = open_model((folder.path / "run").string(), {}, *comm);
  CHECK(settle_thresholds(loaded, {}, {}, false).at(1) == "learned");
  std::vector<int32_t> ids{84, 104, 101, 32};
  SamplingOptions options;
  options.tokens = 12;
  options.temperature = 0;
  generate(*loaded.model, ids, options, -1, [&](int32_t id) {
    ids.push_back(id);
    return true;
  });
  REQUIRE(ids.size() == 16);
  Sequences at{tensor_of(ids), tensor_of(std::vector<int32_t>(16)), tensor_of<int32_t>({0, 16}), 0};
  std::iota(at.position.data<int32_t>().begin(), at.position.data<int32_t>().end(), 0);
  RouterContext context;
  context.mode = Mode::eval;
  const Tensor logits = loaded.model->logits((*loaded.model)(at, context).hidden);
  const int64_t V = logits.shape(1);
  for (int64_t t = 3; t < 15; ++t) {
    const auto row = logits.data<const float>().subspan(size_t(t * V), size_t(V));
    CHECK(std::ranges::max_element(row) - row.begin() == ids[size_t(t) + 1]);
  }
}
