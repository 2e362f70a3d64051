#include <doctest/doctest.h>

#include <sstream>

#include "apps/domains.h"

using namespace agon;

namespace {

/// The value of "12*3+4", "12 - 7": products before sums.
int64_t evaluate(const std::string& expression) {
  std::istringstream in(expression);
  int64_t sum = 0, product = 0;
  char op = '+';
  for (int64_t n; in >> n;) {
    if (op == '*') {
      product *= n;
    } else {
      sum += product;
      product = op == '-' ? -n : n;
    }
    if (!(in >> op)) break;
  }
  return sum + product;
}

}  // namespace

TEST_CASE("arithmetic: every line is true, every heading is answered") {
  Random random({11, 0});
  size_t equations = 0, answers = 0, carries = 0, borrows = 0;
  for (int i = 0; i < 300; ++i) {
    std::istringstream lines(arithmetic_document(random));
    std::string heading;
    for (std::string line; std::getline(lines, line);) {
      const size_t equals = line.find('=');
      if (equals == std::string::npos) {
        CHECK(heading.empty());
        heading = line;
        continue;
      }
      REQUIRE_FALSE(heading.empty());
      std::istringstream right(line.substr(equals + 1));
      int64_t result = -1, carry = 0;
      std::string word;
      right >> result;
      CHECK(evaluate(line.substr(0, equals)) == result);
      ++equations;
      if (right >> word >> carry) {
        CHECK((word == "carry" || word == "borrow"));
        if (word == "carry") CHECK(carry == result / 10);
        (word == "carry" ? carries : borrows) += 1;
      }
      if (line.starts_with(heading + " = ")) {
        heading.clear();
        ++answers;
      }
    }
    CHECK(heading.empty());
  }
  CHECK(evaluate("2+3*4") == 14);
  CHECK(evaluate("12-7-1") == 4);
  CHECK(equations > 3000);
  CHECK(answers > 500);
  CHECK(carries > 500);
  CHECK(borrows > 100);
}
