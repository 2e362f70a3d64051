#include <doctest/doctest.h>

#include <array>

#include "apps/bench.h"
#include "apps/gemm_library.h"
#include "core/parallel.h"

using namespace agon;

namespace {

std::vector<std::array<int64_t, 3>> calls;
int threads_set = 0;

void note(int64_t m, int64_t n, int64_t k, const float* x, const float* w, float* y) {
  calls.push_back({m, n, k});
  y[m * n - 1] = x[m * k - 1] + w[n * k - 1];  // the last of each is in reach
}
const char* version() { return "none"; }
constexpr GemmLibrary kNoting = {"noting", version, [](int n) { threads_set = n; }, note, nullptr};

}  // namespace

TEST_CASE("bench compare: each product with one thread and with all, of us and of the others together") {
  set_threads(2);
  const BenchCases cases = compare_cases({.libraries = {&kNoting}});
  int square = 0, layer = 0;
  for (size_t i = 0; i < cases.size(); i += 2) {
    const BenchCase &ours = cases[i], &theirs = cases[i + 1];
    CHECK(ours.name == "product agon");
    CHECK(theirs.name == "product noting");
    CHECK(ours.together == theirs.together);
    CHECK(ours.threads == (i / 2 % 2 ? 2 : 1));
    if (i > 0) CHECK(ours.together != cases[i - 1].together);
    const auto seen = [&](const char* shape, double flops) { return ours.shape == shape && ours.flops == flops; };
    square += seen("[1024, 1024] x 1024, 2 threads", 2.0 * 1024 * 1024 * 1024);
    layer += seen("S4 gate and up: 64 times [256, 768] x 768, 1 thread", 2.0 * 2048 * 8 * 768 * 768);
  }
  CHECK(square == 1);
  CHECK(layer == 1);
  set_threads(1);
  CHECK(compare_cases({.libraries = {&kNoting}}).size() == cases.size() / 2);
  set_threads(0);
}

TEST_CASE("bench compare: another library makes a layer's products one group after the other") {
  set_threads(1);
  BenchOptions options;
  options.tiny = true;
  options.libraries = {&kNoting};
  const BenchCases cases = compare_cases(options);
  REQUIRE(cases.size() == 4);
  const BenchRun ours = cases[2].prepare(2), theirs = cases[3].prepare(2);
  CHECK(threads_set == 1);
  ours.once(0);
  calls.clear();
  theirs.once(1);
  CHECK(calls == std::vector<std::array<int64_t, 3>>(3, {4, 6, 8}));
  set_threads(0);
}
