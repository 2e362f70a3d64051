#include "apps/option.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>

#include "core/random.h"

using namespace agon;

namespace {

struct Fields {
  int64_t count = 3;
  double share = 0.5;
  bool on = true;
  std::string word = "a", free_word = "x";
  void visit(OptionVisitor& v) {
    v("count", count, Range::within(1, 1'000'000), "how many");
    v("share", share, Range::from_below(0, 1), "how much");
    v("on", on, "whether");
    v("word", word, {"a", "b"}, "which");
    v("free_word", free_word, {}, "what");
  }
};

}  // namespace

TEST_CASE("option: a struct's fields in order, with type, range and value as text") {
  Fields fields;
  const std::vector<Option> options = options_of(fields);
  REQUIRE(options.size() == 5);
  const char* expected[][5] = {
      {"count", "integer", "1 .. 1000000", "3", "an integer in 1 .. 1000000"},
      {"share", "number", ">= 0, < 1", "0.5", "a number >= 0, < 1"},
      {"on", "boolean", "true | false", "true", "true | false"},
      {"word", "string", "a | b", "\"a\"", "one of a | b"},
      {"free_word", "string", "", "\"x\"", "a string"},
  };
  for (size_t i = 0; i < 5; ++i) {
    CHECK(options[i].name == expected[i][0]);
    CHECK(type_of(options[i]) == expected[i][1]);
    CHECK(range_of(options[i]) == expected[i][2]);
    CHECK(toml_of(options[i]) == expected[i][3]);
    CHECK(expected_of(options[i]) == expected[i][4]);
  }
  *std::get<int64_t*>(options[0].field) = 8;
  CHECK(fields.count == 8);
}

TEST_CASE("option: ranges as text") {
  double v = 0;
  const auto range = [&](Range r) { return range_of({"v", &v, r, {}, ""}); };
  CHECK(range(Range::any()) == "");
  CHECK(range(Range::above(0)) == "> 0");
  CHECK(range(Range::at_least(-1.5)) == ">= -1.5");
  CHECK(range(Range::between(0, 1)) == "> 0, < 1");
  CHECK(range(Range{-INFINITY, 2, false, false}) == "<= 2");
}

TEST_CASE("option: numbers read back to the same bits and stay floats in TOML") {
  CHECK(toml_number(1) == "1.0");
  CHECK(toml_number(-0.0) == "-0.0");
  CHECK(toml_number(1e-5) == "1e-05");
  CHECK(toml_number(0.1) == "0.1");
  Random random({1, 2});
  for (int i = 0; i < 1000; ++i) {
    const double v = random.normal() * std::pow(10, double(random.below(600)) - 300);
    CHECK(std::strtod(toml_number(v).c_str(), nullptr) == v);
  }
}

TEST_CASE("option: strings are escaped as TOML asks") {
  CHECK(toml_string("a \"b\" \\ c") == R"("a \"b\" \\ c")");
  CHECK(toml_string("\n\t\x01\x7f") == R"("\n\t\u0001\u007F")");
  CHECK(toml_string(std::string("\0", 1)) == R"("\u0000")");
  CHECK(toml_string("é") == "\"é\"");
}

TEST_CASE("option: copying takes fields of equal name and type only") {
  struct Other {
    double count = 1.5;  // another type
    double share = 0.25;
    std::string strange = "kept";
    void visit(OptionVisitor& v) {
      v("count", count, Range::any(), "");
      v("share", share, Range::any(), "");
      v("strange", strange, {}, "");
    }
  };
  Fields from;
  from.share = 0.75;
  Other to;
  copy_options(options_of(from), options_of(to));
  CHECK(to.count == 1.5);
  CHECK(to.share == 0.75);
  CHECK(to.strange == "kept");
}
