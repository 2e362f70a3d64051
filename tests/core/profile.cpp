#include "core/profile.h"

#include <doctest/doctest.h>

#include <chrono>
#include <thread>

using namespace agon;

namespace {

void spend(int milliseconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  while (std::chrono::steady_clock::now() < end) std::this_thread::yield();
}

}  // namespace

TEST_CASE("profile: parts nest and come back, on each thread by itself") {
  CHECK(std::string(Part::current()).empty());
  {
    const Part outer("outer");
    {
      const Part inner("inner");
      CHECK(std::string(Part::current()) == "inner");
      std::string elsewhere = "?";
      std::thread([&] { elsewhere = Part::current(); }).join();
      CHECK(elsewhere.empty());
    }
    CHECK(std::string(Part::current()) == "outer");
    try {
      const Part failing("failing");
      throw 1;
    } catch (int) {}
    CHECK(std::string(Part::current()) == "outer");
  }
  CHECK(std::string(Part::current()).empty());
}

TEST_CASE("profile: time is booked once, to the innermost part, and adds up to the whole") {
  const auto start = std::chrono::steady_clock::now();
  start_timing();
  for (int i = 0; i < 2; ++i) {
    const Part outer("outer");
    spend(2);
    const Part inner("inner");
    spend(4);
  }
  spend(1);
  const auto seconds = stop_timing();
  const double whole = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  CHECK(seconds.size() == 3);
  CHECK(seconds.at("outer") >= 0.004);
  CHECK(seconds.at("inner") >= 0.008);
  CHECK(seconds.at("") >= 0.001);
  CHECK(seconds.at("outer") + seconds.at("inner") + seconds.at("") <= whole);
}

TEST_CASE("profile: a new timing starts from nothing, inside a part too") {
  const Part part("part");
  start_timing();
  spend(1);
  CHECK(stop_timing().count("part") == 1);
  { const Part untimed("untimed"); }
  start_timing();
  const auto seconds = stop_timing();
  CHECK(seconds.count("untimed") == 0);
  CHECK(seconds.size() == 1);
}
