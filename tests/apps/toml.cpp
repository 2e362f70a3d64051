#include "apps/toml.h"

#include "tests/support/message.h"

using namespace agon;
using namespace agon::test;

namespace {

std::string refused(const char* toml) {
  return user_error([&] { parse_toml(toml, "a.toml"); });
}

template <class T>
T overridden(const std::string& path, const std::string& key, const std::string& override_text) {
  Settings settings;
  add_override(settings, override_text);
  REQUIRE(settings.contains(path));
  REQUIRE(settings.at(path).keys.contains(key));
  CHECK(settings.at(path).keys.at(key).place.exact() == "command line");
  const auto* value = std::get_if<T>(&settings.at(path).keys.at(key).value);
  REQUIRE(value);
  return *value;
}

}  // namespace

TEST_CASE("toml: keys by section, with type and place") {
  const Settings settings = parse_toml(
      "seed = 3\n"
      "[model]\n"
      "  width = 64\n"
      "norm = 'rms'\n"
      "[moe.router]\n"
      "k = 1.5\n"
      "[train]\n",
      "a.toml");
  CHECK(std::get<int64_t>(settings.at("").keys.at("seed").value) == 3);
  CHECK(settings.at("").keys.at("seed").place.exact() == "a.toml:1:1");
  CHECK(std::get<int64_t>(settings.at("model").keys.at("width").value) == 64);
  CHECK(settings.at("model").keys.at("width").place.exact() == "a.toml:3:3");
  CHECK(std::get<std::string>(settings.at("model").keys.at("norm").value) == "rms");
  CHECK(std::get<double>(settings.at("moe.router").keys.at("k").value) == 1.5);
  CHECK(settings.contains("moe"));
  CHECK(settings.at("train").keys.empty());
  CHECK(settings.at("").keys.size() == 1);
}

TEST_CASE("toml: dotted keys and inline tables mean the same") {
  CHECK(std::get<int64_t>(parse_toml("model.width = 8", "a").at("model").keys.at("width").value) == 8);
  CHECK(std::get<int64_t>(parse_toml("model = {width = 8}", "a").at("model").keys.at("width").value) == 8);
  CHECK(std::get<int64_t>(parse_toml("[moe]\nrouter.k = 8", "a").at("moe.router").keys.at("k").value) == 8);
}

TEST_CASE("toml: what no option takes is named") {
  const auto what = [](const char* toml) {
    return std::get<Unsupported>(parse_toml(toml, "a").at("").keys.at("x").value).what;
  };
  CHECK(what("x = [1, 2]") == "an array");
  CHECK(what("x = [{}]") == "an array of tables");
  CHECK(what("x = 2024-01-01") == "a date");
  CHECK(what("x = 07:32:00") == "a time");
  CHECK(what("x = 1979-05-27T07:32:00Z") == "a date and time");
}

TEST_CASE("toml: tables of moe.layer are sections by index") {
  const Settings settings = parse_toml("[[moe.layer]]\nindex = 3\nk = 1\n[[moe.layer]]\nk = 2\nindex = 0\n", "a.toml");
  CHECK(std::get<int64_t>(settings.at("moe.layer.3").keys.at("k").value) == 1);
  CHECK(settings.at("moe.layer.3").keys.at("k").place.exact() == "a.toml:3:1");
  CHECK(std::get<int64_t>(settings.at("moe.layer.0").keys.at("k").value) == 2);
  CHECK(settings.at("moe.layer.3").keys.size() == 1);
  CHECK(settings.at("moe.layer.0").place.line == 4);
  check_contains(refused("[[moe.layer]]\nk = 1"), {"a.toml:1:", "moe.layer", "no index"});
  check_contains(refused("[[moe.layer]]\nindex = -1"), {"a.toml:2:9", "moe.layer.index", "integer >= 0"});
  check_contains(refused("[[moe.layer]]\nindex = 'a'"), {"a.toml:2:9", "moe.layer.index"});
  check_contains(refused("[[moe.layer]]\nindex = 1\n[[moe.layer]]\nindex = 1"),
                 {"a.toml:3:", "second table with index = 1"});
  check_contains(refused("[moe.layer]\nindex = 1"), {"a.toml:1:", "[[moe.layer]]"});
  check_contains(refused("[moe]\nlayer = 3"), {"a.toml:2:1", "[[moe.layer]]"});
}

TEST_CASE("toml: syntax errors name line and column") {
  check_contains(refused("seed = 1\nwidth = = 2"), {"a.toml:2:"});
  check_contains(refused("seed = 1\nseed = 2"), {"a.toml:2:", "seed"});
  check_contains(refused("[model]\n[model]"), {"a.toml:2:", "model"});
  check_contains(refused("x = bare"), {"a.toml:1:"});
  check_contains(refused("x = \"\xff\xfe\""), {"a.toml:1:"});
  check_contains(refused("x = 99999999999999999999"), {"a.toml:1:"});
  refused(("x = " + std::string(100'000, '[')).c_str());
  refused(
      "\x7f"
      "ELF\x02\x01\x01");
}

TEST_CASE("toml: an override's value is TOML, else a string") {
  CHECK(overridden<int64_t>("train", "steps", "train.steps=20") == 20);
  CHECK(overridden<int64_t>("", "seed", "seed=4") == 4);
  CHECK(overridden<int64_t>("", "seed", " seed = 4") == 4);
  CHECK(overridden<double>("optimizer", "rate", "optimizer.rate=1e-3") == 1e-3);
  CHECK(overridden<bool>("model", "tied", "model.tied=true"));
  CHECK(overridden<std::string>("moe.router", "strategy", "moe.router.strategy=unified") == "unified");
  CHECK(overridden<std::string>("train", "out", "train.out=runs/a") == "runs/a");
  CHECK(overridden<std::string>("train", "out", "train.out=\"5\"") == "5");
  CHECK(overridden<std::string>("train", "out", "train.out=") == "");
  CHECK(overridden<std::string>("train", "out", "train.out=a=b") == "a=b");
  CHECK(overridden<std::string>("train", "out", "train.out=1\nsteps = 3") == "1\nsteps = 3");
  CHECK(overridden<int64_t>("moe.layer.3", "k", "moe.layer.3.k=1") == 1);
}

TEST_CASE("toml: overrides replace what is there, the later one wins") {
  Settings settings = parse_toml("[model]\nwidth = 8\nheads = 2", "a.toml");
  add_override(settings, "model.width=16");
  add_override(settings, "model.width=32");
  CHECK(std::get<int64_t>(settings.at("model").keys.at("width").value) == 32);
  CHECK(std::get<int64_t>(settings.at("model").keys.at("heads").value) == 2);
  CHECK(settings.at("model").keys.at("heads").place.origin() == "a.toml:3");
}

TEST_CASE("toml: an override without key or value sign is refused") {
  Settings settings;
  check_contains(user_error([&] { add_override(settings, ""); }), {"command line", "key=value"});
  check_contains(user_error([&] { add_override(settings, "model.width"); }), {"\"model.width\"", "key=value"});
  check_contains(user_error([&] { add_override(settings, "=3"); }), {"no key", "key=value"});
  CHECK(settings.empty());
}
