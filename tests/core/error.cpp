#include "core/error.h"

#include <doctest/doctest.h>

using namespace agon;

TEST_CASE("error: check says the parts and where it stands") {
  check(true, "never");
  try {
    check(1 > 2, "found ", 3, ", expected ", 1.5);
    FAIL("check let a false condition pass");
  } catch (const Error& e) {
    const std::string message = e.what();
    CHECK(message.find("found 3, expected 1.5 [") == 0);
    CHECK(message.find("tests/core/error.cpp:10]") != std::string::npos);
    CHECK(e.exit_code() == 1);
  }
}

TEST_CASE("error: require is the user's mistake and says the parts only") {
  require(true, "never");
  try {
    require(false, "key k: found ", 9);
    FAIL("require let a false condition pass");
  } catch (const UserError& e) {
    CHECK(std::string(e.what()) == "key k: found 9");
    CHECK(e.exit_code() == 2);
  }
}

TEST_CASE("error: anything that converts to bool is a condition") {
  const int x = 0, *p = &x, *null = nullptr;
  CHECK_NOTHROW(check(p, "pointer"));
  CHECK_THROWS_AS(check(null, "null"), Error);
}
