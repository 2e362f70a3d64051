#include "apps/config_dump.h"

#include <cmath>

#include "apps/config_apply.h"
#include "apps/config_compare.h"
#include "apps/config_sections.h"
#include "apps/toml.h"
#include "core/random.h"
#include "tests/support/message.h"
#include "tests/support/toy_strategy.h"

using namespace agon;
using namespace agon::test;

namespace {

Config read(const std::string& toml, const std::string& name = "config.toml") {
  return make_config(parse_toml(toml, name));
}

/// A value that the option allows, far from the default.
struct Draw {
  const Option& option;
  Random& random;

  void operator()(int64_t* v) const {
    const double low = std::max(option.range.low, -1e15), high = std::min(option.range.high, 1e15);
    *v = int64_t(low) + int64_t(random.below(uint64_t(high - low) + 1));
  }
  void operator()(double* v) const {
    do *v = random.normal() * std::pow(10, double(random.below(20)) - 10);
    while (!option.range.holds(*v));
  }
  void operator()(bool* v) const { *v = random.below(2) == 0; }
  void operator()(std::string* v) const {
    static const std::vector<std::string> pieces{"a", "\"", "\\", "\n",  "\r",   "\t",   "é", "𝄞",
                                                 "#", "=",  "'",  "[x]", "\x7f", "\x01", " "};
    if (!option.one_of.empty()) return void(*v = option.one_of[random.below(option.one_of.size())]);
    v->clear();
    for (uint64_t i = random.below(8); i > 0; --i) *v += pieces[random.below(pieces.size())];
  }
};

void draw(std::vector<Option> options, Random& random) {
  for (const Option& option : options) {
    if (option.name != "strategy") std::visit(Draw{option, random}, option.field);
  }
}

Config random_config(uint64_t seed) {
  Random random({seed, 1});
  const char* strategies[] = {"toy", "toy_extended"};
  Config c;
  c.moe.enabled = random.below(4) > 0;
  if (c.moe.enabled) {
    c.moe.router = router_named(strategies[random.below(2)]);
    for (uint64_t i = random.below(4); i > 0; --i)
      c.moe.layers[int64_t(random.below(20))] = router_named(strategies[random.below(2)]);
  }
  for (const ConfigSection& section : sections_of(c)) draw(section.options, random);
  return c;
}

}  // namespace

TEST_CASE("config_dump: random configs read back to the same values") {
  const ToyStrategies strategies;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const Config c = random_config(seed), again = read(dump(c));
    const auto changed = differences(c, again);
    INFO("seed ", seed, ": ", changed.empty() ? "" : changed.front());
    CHECK(changed.empty());
    CHECK(c.moe.enabled == again.moe.enabled);
    CHECK(c.moe.layers.size() == again.moe.layers.size());
  }
}

TEST_CASE("config_dump: each key says where its value came from") {
  const ToyStrategies strategies;
  Settings settings = parse_toml(
      "seed = 4\n[model]\nwidth = 64\n[moe.router]\nstrategy = 'toy'\nk = 3\n[[moe.layer]]\nindex = 1\nnoisy = true\n",
      "a.toml");
  add_override(settings, "train.out=runs/a");
  const std::string toml = dump(make_config(settings));
  check_contains(toml, {"\nseed = 4  # from a.toml:1\n", "\n[model]\n", "\nwidth = 64  # from a.toml:3\n",
                        "\nheads = 4  # from default\n", "\nout = \"runs/a\"  # from command line\n",
                        "\n[moe.router]\nstrategy = \"toy\"  # from a.toml:5\nk = 3  # from a.toml:6\n",
                        "\n[[moe.layer]]\nindex = 1  # from a.toml:7\nstrategy = \"toy\"  # from a.toml:5\n",
                        "\nnoisy = true  # from a.toml:9\n"});
}

TEST_CASE("config_dump: a file's name cannot break out of its comment") {
  const Config c = read("seed = 4", "a\nseed = 5\n.toml");
  CHECK(read(dump(c)).seed == 4);
}
