#include "moe/schedule.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/message.h"

using namespace agon;
using namespace agon::test;

namespace {

std::map<int, CompetitionRate> rates(int layers, CompetitionRate rate) {
  std::map<int, CompetitionRate> all;
  for (int i = 0; i < layers; ++i) all[2 * i + 1] = rate;
  return all;
}

int64_t competing(const CompetitionSchedule& s, int64_t step) {
  int64_t n = 0;
  for (const auto& [layer, events] : s.state().layers) n += s.competes(layer, step);
  return n;
}

int64_t events(const CompetitionSchedule& s) {
  int64_t n = 0;
  for (const auto& [layer, of] : s.state().layers) n += int64_t(of.events.size());
  return n;
}

bool same(const CompetitionSchedule& a, const CompetitionSchedule& b) {
  if (a.state().steps != b.state().steps || a.state().layers.size() != b.state().layers.size()) return false;
  for (const auto& [layer, of] : a.state().layers) {
    const auto& other = b.state().layers.at(layer);
    if (of.events != other.events || of.warm_up != other.warm_up) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("schedule: the cap is never exceeded, the warm-up kept, and no layer loses an event") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    CAPTURE(seed);
    const CompetitionRate free{0.3, 0.1, 8}, narrow{0.3, 0.1, 3};
    const CompetitionSchedule all(rates(8, free), 400, seed), capped(rates(8, narrow), 400, seed);
    CHECK(capped.cap() == 3);
    int64_t most = 0;
    for (int64_t s = 0; s < 400; ++s) {
      CHECK(competing(capped, s) <= 3);
      most = std::max(most, competing(all, s));
      if (s < 40) CHECK(competing(capped, s) == 0);
    }
    CHECK(most > 3);  // so there was something to move
    CHECK(capped.state().lost == 0);
    for (const auto& [layer, of] : all.state().layers) {
      CHECK(capped.state().layers.at(layer).events.size() == of.events.size());
      CHECK(std::ranges::is_sorted(capped.state().layers.at(layer).events));
    }
  }
}

TEST_CASE("schedule: about `rate` of the steps, different for each layer, the same for the same seed") {
  const CompetitionRate rate{0.07, 0.05, 3};
  const CompetitionSchedule s(rates(4, rate), 20000, 3);
  for (const auto& [layer, of] : s.state().layers) {
    const double expected = 0.07 * 19000;
    CHECK(std::abs(double(of.events.size()) - expected) < 4 * std::sqrt(expected));
  }
  CHECK(s.state().layers.at(1).events != s.state().layers.at(3).events);
  CHECK(same(s, CompetitionSchedule(rates(4, rate), 20000, 3)));
  CHECK_FALSE(same(s, CompetitionSchedule(rates(4, rate), 20000, 4)));
  CHECK_FALSE(s.competes(2, s.state().layers.at(1).events[0]));
  CHECK(s.competes(1, s.state().layers.at(1).events[0]));
}

TEST_CASE("schedule: an event moves to the nearest earlier step with room, else to the nearest later one") {
  // Every layer competes in every step it may: with the cap all events of the third layer find the others in the way.
  const CompetitionSchedule full({{0, {1, 0, 1}}}, 5, 1);
  CHECK(full.state().layers.at(0).events == std::vector<int64_t>{0, 1, 2, 3, 4});
  // Two layers share five steps: what the second is denied goes to a neighbour of the hit.
  for (uint64_t seed = 1; seed < 60; ++seed) {
    CAPTURE(seed);
    const std::map<int, CompetitionRate> wide{{0, {0.5, 0, 2}}, {1, {0.5, 0, 2}}},
        narrow{{0, {0.5, 0, 1}}, {1, {0.5, 0, 1}}};
    const CompetitionSchedule drawn(wide, 12, seed), moved(narrow, 12, seed);
    const auto& first = drawn.state().layers.at(0).events;
    CHECK(moved.state().layers.at(0).events == first);
    std::vector<int64_t> expected, hits = drawn.state().layers.at(1).events;
    int64_t lost = 0;
    const auto taken = [&](int64_t s) {
      return std::ranges::count(first, s) || std::ranges::count(hits, s) || std::ranges::count(expected, s);
    };
    for (int64_t hit : hits) {
      if (!std::ranges::count(first, hit)) {
        expected.push_back(hit);
        continue;
      }
      int64_t at = -1;
      for (int64_t s = hit - 1; s >= 0 && at < 0; --s)
        if (!taken(s)) at = s;
      for (int64_t s = hit + 1; s < 12 && at < 0; ++s)
        if (!taken(s)) at = s;
      if (at < 0)
        ++lost;
      else
        expected.push_back(at);
    }
    std::ranges::sort(expected);
    CHECK(moved.state().layers.at(1).events == expected);
    CHECK(moved.state().lost == lost);
    CHECK(events(moved) + lost == events(drawn));
  }
}

TEST_CASE("schedule: a longer training keeps what was drawn and its warm-up") {
  const CompetitionRate rate{0.4, 0.2, 2};
  const CompetitionSchedule first(rates(4, rate), 100, 9);
  const CompetitionSchedule again(rates(4, rate), 100, 9, first.state(), "run");
  CHECK(same(first, again));
  const CompetitionSchedule longer(rates(4, rate), 300, 9, first.state(), "run");
  for (const auto& [layer, of] : longer.state().layers) {
    const auto& before = first.state().layers.at(layer);
    CHECK(of.warm_up == 20);
    REQUIRE(of.events.size() > before.events.size());
    CHECK(std::equal(before.events.begin(), before.events.end(), of.events.begin()));
    CHECK(of.events[before.events.size()] >= 100);
  }
  for (int64_t s = 0; s < 300; ++s) CHECK(competing(longer, s) <= 2);
}

TEST_CASE("schedule: what cannot be kept is refused") {
  check_contains(user_error([] {
                   CompetitionSchedule(rates(8, {0.5, 0.1, 3}), 10, 1);
                 }),
                 {"max_layers = 3", "at least 4"});
  CHECK_NOTHROW(CompetitionSchedule(rates(30, {0.1, 0.1, 3}), 10, 1));  // in doubles their sum is above 3
  CHECK_NOTHROW(CompetitionSchedule({}, int64_t(1) << 50, 1));          // takes no memory for steps
  const CompetitionSchedule saved(rates(2, {}), 10, 1);
  check_contains(user_error([&] { CompetitionSchedule(rates(3, {}), 10, 1, saved.state(), "runs/a"); }),
                 {"runs/a", "1, 3", "expected 1, 3, 5"});
  CHECK(competing(CompetitionSchedule(), 0) == 0);
}
