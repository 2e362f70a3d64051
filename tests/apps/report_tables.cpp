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

TEST_CASE("time table: the largest part first, shares of the whole") {
  const std::string s = time_table({{"head", 1.0}, {"experts", 3.0}, {"", 0.0}});
  CHECK(s.find("experts") < s.find("head"));
  CHECK(s.find("75.0%") != std::string::npos);
  CHECK(s.find("(elsewhere)") != std::string::npos);
}
