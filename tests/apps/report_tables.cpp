#include "apps/report_tables.h"

#include <doctest/doctest.h>

using namespace agon;

TEST_CASE("memory table: the total, and what fits") {
  MemoryUse use;
  use.arena = 1000;
  use.parameters = 200;
  use.gradients = 100;
  use.optimizer = 300;
  use.text = 50;
  CHECK(use.total() == 1650);
  const std::string s = memory_table(use, 400, 100, 6000);  // less the fixed 400
  CHECK(s.find("1650") != std::string::npos);
  CHECK(s.find(": 56 sequences") != std::string::npos);
  CHECK(memory_table(use, 400, 0, 5000).find(": 0 sequences") != std::string::npos);
}

TEST_CASE("require_room: refuses what a GPU cannot hold, with the table and what to change") {
  MemoryUse use;
  use.arena = 1000;
  use.optimizer = 500;
  const Device gpu{Device::cuda, 1};
  require_room(use, 1500, gpu);
  require_room(use, 10, {});  // a CPU's system decides
  for (const int64_t available : {1499, 10})
    CHECK_THROWS_WITH_AS(require_room(use, available, gpu), doctest::Contains("device = \"cuda:1\": too little memory"),
                         UserError);
  CHECK_THROWS_WITH_AS(require_room(use, 10, gpu), doctest::Contains("train.micro_batch"), UserError);
  CHECK_THROWS_WITH_AS(require_room(use, 10, gpu), doctest::Contains("arena (one step)"), UserError);
  CHECK_THROWS_WITH_AS(require_room(use, 2000, gpu, "9 bytes wanted"), doctest::Contains("9 bytes wanted"), UserError);
}

TEST_CASE("time table: the largest part first, shares of the whole") {
  const std::string s = time_table({{"head", 1.0}, {"experts", 3.0}, {"", 0.0}});
  CHECK(s.find("experts") < s.find("head"));
  CHECK(s.find("75.0%") != std::string::npos);
  CHECK(s.find("(elsewhere)") != std::string::npos);
}
