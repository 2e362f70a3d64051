#include "apps/bench.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "core/parallel.h"
#include "tests/apps/run_folder.h"
#include "tests/support/cuda.h"
#include "tests/support/message.h"

using namespace agon;
using namespace agon::testing;

namespace {

BenchArguments tiny(std::vector<std::string> groups, const Folder& folder, const std::string& device) {
  BenchArguments a;
  a.groups = std::move(groups);
  a.device = device;
  a.tiny = a.all = true;
  a.json = (folder.path / "bench.json").string();
  a.command = "agon bench --tiny";
  return a;
}

/// Runs all cases in the smallest sizes, and returns what the file says of them.
nlohmann::json run_all(const std::string& device) {
  const Folder folder;
  std::string printed;
  {
    const Quiet quiet((folder.path / "out").string());
    bench(tiny({}, folder, device));
    printed = quiet.text();
  }
  const auto json = nlohmann::json::parse(folder.bytes(folder.path / "bench.json"));
  size_t lines = 0;
  const std::string table = printed.substr(0, printed.find("  time per part"));
  for (const char c : table) lines += c == '\n';
  CHECK(lines == json["cases"].size() + 2);  // the peak, the head, a line a case
  CHECK(table.size() < printed.size());
  set_threads(0);
  return json;
}

void check_cases(const nlohmann::json& json) {
  std::map<std::string, int> seen;
  for (const auto& c : json["cases"]) {
    const std::string name = c["group"].get<std::string>() + " " + c["case"].get<std::string>();
    CAPTURE(name);
    CHECK_MESSAGE(!c.contains("error"), c.value("error", ""));
    ++seen[name];
    if (c.contains("error")) continue;
    CHECK(c["milliseconds"].get<double>() > 0);
    CHECK(c["rounds"].get<int>() >= 3);
    CHECK(c["bytes"].get<double>() > 0);
    CHECK(c["peak_gflops_per_second"].get<double>() > 0);
    CHECK(c["copy_gigabytes_per_second"].get<double>() > 0);
    if (c["group"] != "ops") CHECK(c["tokens_per_second"].get<double>() > 0);
  }
  for (const char* name :
       {"ops linear", "ops linear+backward", "ops grouped_linear", "ops attention", "ops swiglu", "ops rms_norm",
        "ops softmax", "ops linear_cross_entropy", "ops adamw", "ops permute", "ops combine", "layer token_choice",
        "layer token_choice, balanced", "layer expert_choice", "layer unified", "layer competition",
        "layer competition, competing", "layer token_choice, select and plan", "train token_choice"})
    CHECK_MESSAGE(seen[name] > 0, name);
}

}  // namespace

TEST_CASE("bench: every case runs on a CPU, and the file has its figures") {
  const nlohmann::json json = run_all("cpu");
  check_cases(json);
  CHECK(json["schema"] == 1);
  CHECK(json["device"] == "cpu");
  CHECK(json["command"] == "agon bench --tiny");
  CHECK(json["machine"].contains("processor"));
  CHECK(json["cases"][0]["dtype"] == "f32");
}

TEST_CASE("cuda: bench: every case runs on a GPU" * doctest::skip(!has_gpu())) {
  const nlohmann::json json = run_all("cuda");
  check_cases(json);
  CHECK(json["device"] == "cuda:0");
  CHECK(json["machine"].contains("gpu"));
  CHECK(json["cases"][0]["dtype"] == "bf16");
}

TEST_CASE("bench: takes what is asked for, and refuses what does not exist") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  BenchArguments a = tiny({"ops"}, folder, "cpu");
  a.filter = "swiglu";
  CHECK(bench(a) == 0);
  CHECK(nlohmann::json::parse(folder.bytes(folder.path / "bench.json"))["cases"].size() == 2);
  a.list = true;
  a.json.clear();
  CHECK(bench(a) == 0);
  CHECK(quiet.text().ends_with("ops swiglu [5, 16]\nops swiglu+backward [5, 16]\n"));
  a.list = false;
  a.filter = "no such op";
  CHECK_THROWS_WITH_AS(bench(a), doctest::Contains("--filter no such op: no case is called so"), UserError);
  a.device = "tpu";
  CHECK_THROWS_WITH_AS(bench(a), doctest::Contains("expected cpu or cuda"), UserError);
  a.device = "cuda";
  a.compare = true;
  CHECK_THROWS_WITH_AS(bench(a), doctest::Contains("--compare measures on the CPU, but --device is cuda"), UserError);
  a.device = "cpu";
  a.groups = {"layer"};
  CHECK_THROWS_WITH_AS(bench(a), doctest::Contains("--compare is of ops alone"), UserError);
  a.groups = {};  // and beside the program of the tests there is no other library
  CHECK_THROWS_WITH_AS(bench(a), doctest::Contains("no other library to compare with"), UserError);
  a.compare = false;
  a.precision = "f64";
  CHECK_THROWS_WITH_AS(bench(a), doctest::Contains("expected fp32 or bf16"), UserError);
  set_threads(0);
}
