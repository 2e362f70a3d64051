#include "apps/bench_report.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "apps/gemm_library.h"

using namespace agon;

namespace {

std::vector<BenchRow> rows() {
  BenchCase c{.group = "layer", .name = "unified", .shape = "S1", .dtype = DType::bf16, .flops = 4e9, .bytes = 2e8};
  c.tokens = 1000;
  BenchResult r;
  r.seconds = 0.02;
  r.spread = 0.05;
  r.rounds = 5;
  r.iterations = 10;
  r.peak = {400e9, 40e9};
  r.figures = {{"load_ratio", 1.25}};
  r.parts = {{"", 1}, {"experts", 3}};
  c.threads = 2;
  BenchResult failed;
  failed.error = "no room";
  return {{c, r, "1980 MHz, 2619 MHz, 600.00 W, 50"}, {c, failed, ""}};
}

}  // namespace

TEST_CASE("bench report: a line a case, and why one has no figures") {
  const std::string table = bench_table(rows());
  CHECK(table.find("layer unified") != std::string::npos);
  for (const char* figure : {"20.000", "5.0%", "200.0", "50.0%", "10.0", "25.0%", "50000", "failed: no room"})
    CHECK_MESSAGE(table.find(figure) != std::string::npos, figure);
}

TEST_CASE("bench report: the file") {
  const auto j = nlohmann::json::parse(bench_json(rows(), {}, {300e9, 30e9}, "agon bench layer"));
  CHECK(j["schema"] == 1);
  CHECK(j["command"] == "agon bench layer");
  CHECK(j["date"].get<std::string>().size() == 20);
  CHECK(j["peak_gflops_per_second_at_start"] == 300);
  CHECK(j["machine"]["threads"].get<int>() >= 1);
  const auto& c = j["cases"][0];
  CHECK(c["case"] == "unified");
  CHECK(c["dtype"] == "bf16");
  CHECK(c["milliseconds"].get<double>() == doctest::Approx(20));
  CHECK(c["share_of_peak"].get<double>() == doctest::Approx(0.5));
  CHECK(c["share_of_copy"].get<double>() == doctest::Approx(0.25));
  CHECK(c["load_ratio"] == 1.25);
  CHECK(c["threads"] == 2);
  CHECK(c["parts"]["experts"] == 0.75);
  CHECK(c["parts"]["elsewhere"] == 0.25);
  CHECK(c["clocks"] == "1980 MHz, 2619 MHz, 600.00 W, 50");
  CHECK(j["cases"][1]["error"] == "no room");
  CHECK_FALSE(j["cases"][1].contains("milliseconds"));
  CHECK_FALSE(j.contains("libraries"));
  const GemmLibrary library = {"other", [] { return "1.0"; }, nullptr, nullptr, nullptr};
  CHECK(nlohmann::json::parse(bench_json({}, {.libraries = {&library}}, {}, ""))["libraries"]["other"] == "1.0");
}

TEST_CASE("bench report: clocks are a GPU's") { CHECK(gpu_clocks({}).empty()); }
