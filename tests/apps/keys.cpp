#include "apps/keys.h"

#include <sstream>

#include "apps/config_sections.h"
#include "tests/support/message.h"
#include "tests/support/toy_strategy.h"

using namespace agon;
using namespace agon::test;

namespace {

std::string keys(const std::string& section = "") {
  std::ostringstream out;
  print_keys(out, section);
  return out.str();
}

}  // namespace

TEST_CASE("keys: every key with type, default, range and meaning") {
  const ToyStrategies strategies;
  const std::string all = keys();
  Config c = specimen();
  for (const ConfigSection& section : sections_of(c)) {
    if (!section.name.empty()) CHECK(contains(all, "[" + section.name + "]"));
    for (const Option& option : section.options) {
      CHECK(contains(all, "\n  " + option.name + " "));
      CHECK(contains(all, option.help));
    }
  }
  check_contains(
      all, {"[moe.router] with strategy = \"toy\"", "[moe.router] with strategy = \"token_choice\"", "[[moe.layer]]"});
}

TEST_CASE("keys: columns are aligned") {
  std::istringstream lines(keys("model"));
  std::string header, line;
  std::getline(lines, header);
  size_t rows = 0;
  for (size_t at = header.find("meaning"); std::getline(lines, line);) {
    if (!line.starts_with("  ")) continue;
    ++rows;
    REQUIRE(line.size() > at);
    CHECK(line[at - 1] == ' ');
    CHECK(line[at] != ' ');
  }
  CHECK(rows > 10);
}

TEST_CASE("keys: one section, with those below it") {
  const ToyStrategies strategies;
  const std::string model = keys("model"), moe = keys("moe"), router = keys("moe.router");
  check_contains(model, {"[model]", "width", "integer", "128", "1 .. 1000000"});
  CHECK_FALSE(contains(model, "[train]"));
  check_contains(moe, {"[moe]\n", "[moe.router] with", "[[moe.layer]]"});
  CHECK_FALSE(contains(router, "[moe]\n"));
  CHECK(keys("moe.layer") == router);
}

TEST_CASE("keys: an unknown section names the nearest") {
  check_contains(user_error([] { keys("modle"); }), {"unknown section \"modle\"", "did you mean \"model\"?"});
}
