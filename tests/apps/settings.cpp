#include "apps/settings.h"

#include "tests/support/message.h"

using namespace agon;
using namespace agon::test;

namespace {

Setting given(decltype(Setting::value) value, Place place = {"a.toml", 3, 5}) {
  return {std::move(value), std::move(place)};
}

template <class T>
T stored(decltype(Setting::value) value, Range range = Range::any()) {
  T field{};
  store({"key", &field, range, {}, ""}, "model.key", given(std::move(value)));
  return field;
}

template <class T>
std::string refused(decltype(Setting::value) value, Range range = Range::any()) {
  return user_error([&] { stored<T>(std::move(value), range); });
}

}  // namespace

TEST_CASE("settings: places") {
  CHECK(Place{"a.toml", 3, 5}.exact() == "a.toml:3:5");
  CHECK(Place{"a.toml", 3, 5}.origin() == "a.toml:3");
  CHECK(Place{"command line"}.exact() == "command line");
  CHECK(Place{"command line"}.origin() == "command line");
}

TEST_CASE("settings: values of the right type are stored") {
  CHECK(stored<int64_t>(int64_t(7)) == 7);
  CHECK(stored<double>(0.25) == 0.25);
  CHECK(stored<bool>(true));
  CHECK(stored<std::string>(std::string("é")) == "é");
}

TEST_CASE("settings: an integer is a number, a number is an integer only exactly") {
  CHECK(stored<double>(int64_t(2)) == 2.0);
  CHECK(stored<int64_t>(1e3) == 1000);
  check_contains(refused<int64_t>(2.5), {"a.toml:3:5: model.key", "found number 2.5", "expected an integer"});
  refused<int64_t>(1e17);
  refused<int64_t>(std::numeric_limits<double>::quiet_NaN());
  refused<int64_t>(std::numeric_limits<double>::infinity());
}

TEST_CASE("settings: wrong types name place, key, found and expected") {
  check_contains(refused<int64_t>(std::string("abc")),
                 {"a.toml:3:5: model.key: ", "found string \"abc\"", "expected an integer"});
  check_contains(refused<int64_t>(true), {"found true", "expected an integer"});
  check_contains(refused<double>(std::string("1")), {"found string \"1\"", "expected a number"});
  check_contains(refused<bool>(int64_t(1)), {"found integer 1", "expected true | false"});
  check_contains(refused<std::string>(false), {"found false", "expected a string"});
  check_contains(refused<double>(Unsupported{"an array"}), {"found an array", "expected a number"});
}

TEST_CASE("settings: the range is stated") {
  check_contains(refused<int64_t>(int64_t(0), Range::within(1, 8)),
                 {"found integer 0", "expected an integer in 1 .. 8"});
  check_contains(refused<double>(1.0, Range::from_below(0, 1)), {"found number 1", "expected a number >= 0, < 1"});
  CHECK(stored<double>(0.0, Range::from_below(0, 1)) == 0);
  refused<double>(std::numeric_limits<double>::quiet_NaN());
  refused<double>(std::numeric_limits<double>::infinity(), Range::at_least(0));
}

TEST_CASE("settings: strings have to be UTF-8 and one of the choices") {
  std::string field;
  const Option choice{"key", &field, Range::any(), {"rms", "layer"}, ""};
  check_contains(user_error([&] { store(choice, "model.norm", given(std::string("layr"))); }),
                 {"model.norm", "\"layr\"", "one of rms | layer", "did you mean \"layer\"?"});
  check_contains(refused<std::string>(std::string("a\xff")), {"\"a\\xff\"", "expected UTF-8"});
  const Option any{"key", &field, Range::any(), {}, ""};
  check_contains(user_error([&] { store(any, "train.out", given(int64_t(5), {"command line"})); }),
                 {"command line: train.out", "found integer 5", "expected a string", "'train.out=\"...\"'"});
}
