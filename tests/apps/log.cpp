#include "apps/log.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

using namespace agon;

namespace {

StepReport report(int64_t step) {
  StepReport r;
  r.step = step;
  r.loss = 2.5;
  r.rate = 1e-3;
  r.gradient_norm = 0.75;
  r.seconds = 0.5;
  r.tokens = 1000;
  r.share_of_peak = 0.25;
  r.losses["balance"] = 1.01;
  r.load = {{1, 3}, {2, 2}};
  return r;
}

std::string shown(const LogOptions& options, const std::vector<StepReport>& reports, int64_t steps) {
  std::FILE* out = std::tmpfile();
  {
    Progress progress(options, steps, out);
    for (const StepReport& r : reports) progress.step(r);
  }
  std::string s(size_t(std::ftell(out)), ' ');
  std::rewind(out);
  CHECK(std::fread(s.data(), 1, s.size(), out) == s.size());
  std::fclose(out);
  return s;
}

}  // namespace

TEST_CASE("log.jsonl: the names scripts rely on") {
  StepReport r = report(7);
  auto j = nlohmann::json::parse(json_line(r));
  CHECK(j["step"] == 7);
  CHECK(j["loss"] == 2.5);
  CHECK(j["lr"] == 1e-3);
  CHECK(j["grad_norm"] == 0.75);
  CHECK(j["tokens_per_s"] == 2000);
  CHECK(j["share_of_peak"] == 0.25);
  CHECK(j["loss.balance"] == 1.01);
  CHECK(j["load"] == nlohmann::json::parse("[[1,3],[2,2]]"));
  CHECK(!j.contains("val_loss"));
  r.evaluated = true;
  r.val_loss = 2;
  r.val_bpb = 3;
  j = nlohmann::json::parse(json_line(r));
  CHECK(j["val_loss"] == 2);
  CHECK(j["val_bpb"] == 3);
  CHECK(!j.contains("val_k"));
  CHECK(j["val_scope"] == "causal");
  r.val_causal = false;
  CHECK(nlohmann::json::parse(json_line(r))["val_scope"] == "noncausal");
  r.configured_k = 2;
  r.val_k = 1.75;
  CHECK(nlohmann::json::parse(json_line(r))["val_k"] == 1.75);
}

TEST_CASE("log: of many ranks, what their communication took and whom they waited for") {
  StepReport r = report(7);
  LogOptions o;
  CHECK(!nlohmann::json::parse(json_line(r)).contains("comm_share"));
  CHECK(shown(o, {r}, 7).find("comm") == std::string::npos);
  r.ranks = 4;
  r.comm_share = 0.125;
  r.comm_bytes = 2048;
  auto j = nlohmann::json::parse(json_line(r));
  CHECK(j["comm_share"] == 0.125);
  CHECK(j["comm_bytes"] == 2048);
  CHECK(!j.contains("slowest"));
  CHECK(shown(o, {r}, 7).find("25% of peak comm 12% 2.0 KiB load") != std::string::npos);
  r.slowest = 3;
  CHECK(nlohmann::json::parse(json_line(r))["slowest"] == 3);
  CHECK(shown(o, {r}, 7).find("comm 12% 2.0 KiB slowest 3 load") != std::string::npos);
}

TEST_CASE("load ratio: the worst layer's largest load over its mean") {
  CHECK(load_ratio({{1, 3}, {2, 2}}) == 1.5);
  CHECK(load_ratio({}) == 0);
  CHECK(load_ratio({{0, 0}}) == 0);
}

TEST_CASE("progress: plain lines every so many steps, on evaluation and at the end") {
  LogOptions o;
  o.every = 2;
  std::vector<StepReport> reports;
  for (int64_t i = 1; i <= 5; ++i) reports.push_back(report(i));
  reports[2].evaluated = true;
  reports[2].val_loss = 2.25;
  const std::string s = shown(o, reports, 5);
  CHECK(std::count(s.begin(), s.end(), '\n') == 4);
  CHECK(s.find("step 2/5 loss 2.5000") != std::string::npos);
  CHECK(s.find("step 3/5 loss 2.5000 val 2.2500") != std::string::npos);
  reports[2].configured_k = 2;
  reports[2].val_k = 1.875;
  CHECK(shown(o, reports, 5).find("step 3/5 loss 2.5000 val 2.2500 k 1.88 lr") != std::string::npos);
  reports[2].val_causal = false;
  CHECK(shown(o, reports, 5).find("val 2.2500 (noncausal) k 1.88 lr") != std::string::npos);
  reports[2].val_causal = true;
  reports[2].val_k = 2;
  CHECK(shown(o, reports, 5) == s);
  CHECK(s.find("2000 tok/s 25% of peak load 1.50") != std::string::npos);
  CHECK(s.find('\r') == std::string::npos);
}

TEST_CASE("progress: one live line that is erased before it is written again, none writes nothing") {
  LogOptions o;
  o.format = "live";
  const std::string s = shown(o, {report(1), report(5)}, 5);
  CHECK(std::count(s.begin(), s.end(), '\n') == 1);
  CHECK(s.find("\r\x1b[K") != std::string::npos);
  o.format = "none";
  CHECK(shown(o, {report(1)}, 1).empty());
}

TEST_CASE("short forms") {
  CHECK(short_number(950) == "950");
  CHECK(short_number(12345) == "12.3k");
  CHECK(short_number(1.5e6) == "1.5M");
  CHECK(short_time(12) == "12s");
  CHECK(short_time(200) == "3m20s");
  CHECK(short_time(3720) == "1h02m");
  CHECK(short_bytes(2048) == "2.0 KiB");
  CHECK(short_bytes(3.5 * 1024 * 1024) == "3.5 MiB");
}
