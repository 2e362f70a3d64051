#include "apps/plan_report.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "apps/config_file.h"
#include "tests/apps/tiny_run.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

LayoutCosts costs(int64_t expert, bool shard, int64_t arena, int64_t rows, int64_t gradients) {
  LayoutCosts c;
  c.layout = {4, expert, shard};
  c.memory.arena = arena;
  c.memory.parameters = 1 << 20;
  c.out = c.home = rows;
  c.gradients = gradients;
  if (expert > 1) {
    c.buffers = 1024;
    c.exchange = {27, 32, 27 * 64, 128, 132};
    c.exchanges = 3;
  }
  return c;
}

const LayoutComparison kComparison = {{costs(1, false, 4 << 20, 0, 9 << 20), costs(2, false, 6 << 20, 2048, 1 << 20),
                                       costs(4, false, 5 << 20, 2048, 1 << 20)},
                                      0};

Config config_of(std::vector<std::string> overrides = {}) {
  return parse_config(std::string(kTiny) + kTinyRouter, "tiny", overrides);
}

}  // namespace

TEST_CASE("plan report: the layout that moves the least, and the one that needs the least, among those that fit") {
  LayoutComparison c = kComparison;
  CHECK(c.least_moved() == 2);  // as little as the second, in less memory
  CHECK(c.least_memory() == 0);
  c.room = (5 << 20) + (1 << 19);
  CHECK(c.fits(c.layouts[0]));
  CHECK(!c.fits(c.layouts[2]));
  CHECK(c.least_moved() == 0);
  c.room = 1;
  CHECK(c.least_moved() == -1);
  CHECK(c.least_memory() == 0);
}

TEST_CASE("plan report: the table marks them and says what rows are") {
  const std::string table = plan_table(kComparison, config_of());
  CHECK(contains(table, "*  4 x 1         no          5.0 MiB     1.0 KiB     1.0 MiB"));
  CHECK(contains(table, " + 1 x 4         no          4.0 MiB     0.0 KiB     1.0 MiB"));
  CHECK(contains(table, "under even routing"));
  CHECK(contains(table, "T (1 - C(E - e, k) / C(E, k))"));
  CHECK(contains(table, "   2 ranks                        27          32"));
  CHECK(contains(table, "4 x 3"));
  CHECK(contains(table, "No time is predicted"));
  CHECK(!contains(table, "too much"));
  CHECK(!contains(table, "compete"));
  LayoutComparison small = kComparison;
  small.room = 4 << 20;
  small.layouts[1].most_in_competition = 5 << 20;
  const std::string other = plan_table(small, config_of({"parallel.exchange=bounded"}));
  CHECK(contains(other, "too much"));
  CHECK(contains(other, "of those that take no more than 4.0 MiB"));
  CHECK(contains(other, "parallel.exchange_bound times"));
  CHECK(contains(other, "up to 5.0 MiB"));
  CHECK(!contains(other, "C(E - e, k)"));
  LayoutComparison one;
  one.layouts.push_back(LayoutCosts{});
  CHECK(contains(plan_table(one, config_of()), "one rank sends nothing"));
}

TEST_CASE("plan report: the file has every figure in bytes") {
  const auto j = nlohmann::json::parse(plan_json(kComparison, config_of(), "tiny.toml"));
  CHECK(j["config"] == "tiny.toml");
  CHECK(j["ranks"] == 4);
  CHECK(j["least_moved"] == 2);
  CHECK(j["rows"] == "even routing");
  CHECK(!j.contains("room"));
  REQUIRE(j["layouts"].size() == 3);
  const auto& l = j["layouts"][1];
  CHECK(l["expert"] == 2);
  CHECK(l["data"] == 2);
  CHECK(l["memory"]["arena"] == (6 << 20) - 1024);
  CHECK(l["memory"]["exchange"] == 1024);
  CHECK(l["memory"]["total"] == 7 << 20);
  CHECK(l["one_exchange"]["rows"] == 27);
  CHECK(l["bytes_sent_in_a_step"]["rows_out"] == 2048);
  CHECK(l["bytes_sent_in_a_step"]["total"] == 4096 + (1 << 20));
}
