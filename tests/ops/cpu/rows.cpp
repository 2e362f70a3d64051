#include "ops/cpu/rows.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ops/cpu/exp.h"
#include "ops/cpu/lanes.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

namespace {

// Below, at and above the sixteen lanes.
const int64_t kLengths[] = {0, 1, 3, 15, 16, 17, 31, 64, 100, 257};

/// Draws, with what is awkward among them.
template <class T>
std::vector<T> row(int64_t n, uint64_t seed) {
  const Tensor drawn = random({n}, seed, 3, DType::f32);
  std::vector<T> x;
  for (const float v : drawn.data<const float>()) x.push_back(T(v));
  const float awkward[] = {0.f, -0.f, 90.f, -110.f, 1e-40f, std::numeric_limits<float>::infinity()};
  for (int64_t i = 20; i < n; i += 13) x[size_t(i)] = T(awkward[size_t(i + int64_t(seed)) % 6]);
  return x;
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// Calls f(name, kernels) for every set of this processor.
template <class T, class F>
void each_set(F&& f) {
  if constexpr (std::is_same_v<T, double>) {
    f("double", cpu::kRowsDouble);
  } else {
    for (int i = 0; const cpu::RowInstructions* set = cpu::row_instructions(i); ++i) {
      if constexpr (std::is_same_v<T, float>)
        f(set->name, set->f32);
      else
        f(set->name, set->half);
    }
  }
}

/// f(kernels, n, results) on every set must give what expected(n, results) does.
template <class T, class F, class Expected>
void check_sets(F&& f, Expected&& expected) {
  using A = Accumulator<T>;
  for (const int64_t n : kLengths) {
    std::vector<T> want, have;
    std::vector<A> want_numbers, have_numbers;
    expected(n, want, want_numbers);
    each_set<T>([&](const char* name, const cpu::RowKernels<T>& kernels) {
      have.clear();
      have_numbers.clear();
      f(kernels, n, have, have_numbers);
      INFO(name, " ", dtype_of<T>, " n ", n);
      CHECK(same(have, want));
      CHECK(same(have_numbers, want_numbers));
    });
  }
}

}  // namespace

TEST_CASE_TEMPLATE("rows: every instruction set gives the bits of the loop number by number", T, float, bf16, double) {
  using A = Accumulator<T>;
  using Row = std::vector<T>;
  using Numbers = std::vector<A>;
  using Kernels = cpu::RowKernels<T>;
  const A factor = A(0.37), top = A(1.25), mean = A(-0.5);

  SUBCASE("swiglu") {
    check_sets<T>(
        [](const Kernels& k, int64_t n, Row& y, Numbers&) {
          y.resize(size_t(n));
          k.swiglu(y.data(), row<T>(n, 1).data(), row<T>(n, 2).data(), n);
        },
        [](int64_t n, Row& y, Numbers&) {
          const Row gate = row<T>(n, 1), up = row<T>(n, 2);
          for (size_t i = 0; i < gate.size(); ++i) {
            const A a = A(gate[i]);
            y.push_back(T(a / (A(1) + cpu::exp(-a)) * A(up[i])));
          }
        });
  }
  SUBCASE("swiglu_backward, in place") {
    check_sets<T>(
        [](const Kernels& k, int64_t n, Row& d, Numbers&) {
          d = row<T>(n, 1);
          const Row up = row<T>(n, 2);
          d.insert(d.end(), up.begin(), up.end());
          k.swiglu_backward(d.data(), d.data() + n, row<T>(n, 3).data(), d.data(), d.data() + n, n);
        },
        [](int64_t n, Row& d, Numbers&) {
          const Row gate = row<T>(n, 1), up = row<T>(n, 2), dy = row<T>(n, 3);
          d.resize(size_t(2 * n));
          for (size_t i = 0; i < gate.size(); ++i) {
            const A a = A(gate[i]), s = A(1) / (A(1) + cpu::exp(-a));
            d[i] = T(A(dy[i]) * A(up[i]) * s * (A(1) + a * (A(1) - s)));
            d[size_t(n) + i] = T(A(dy[i]) * a * s);
          }
        });
  }
  SUBCASE("max, exp, exp_slopes") {
    check_sets<T>(
        [=](const Kernels& k, int64_t n, Row&, Numbers& out) {
          const Row x = row<T>(n, 6);
          Numbers p(static_cast<size_t>(n)), s = row<A>(n, 4);
          out = {k.max(mean, x.data(), factor, n), k.exp(p.data(), x.data(), factor, top, n)};
          out.insert(out.end(), p.begin(), p.end());
          k.exp_slopes(p.data(), s.data(), factor, top, mean, n);
          out.insert(out.end(), p.begin(), p.end());
          out.insert(out.end(), s.begin(), s.end());
        },
        [=](int64_t n, Row&, Numbers& out) {
          const Row x = row<T>(n, 6);
          Numbers p, q, s = row<A>(n, 4);
          for (const T v : x) p.push_back(cpu::exp(A(v) * factor - top));
          for (size_t i = 0; i < p.size(); ++i) {
            q.push_back(cpu::exp(p[i] * factor - top));
            s[i] = q[i] * (s[i] - mean) * factor;
          }
          out = {cpu::max_lanes<A>(mean, n, [&](int64_t i) { return A(x[size_t(i)]) * factor; }),
                 cpu::sum_lanes<A>(n, [&](int64_t i) { return p[size_t(i)]; })};
          for (const Numbers* more : {&p, &q, &s}) out.insert(out.end(), more->begin(), more->end());
        });
  }
  SUBCASE("dot, scale") {
    check_sets<T>(
        [=](const Kernels& k, int64_t n, Row& y, Numbers& sum) {
          y = row<T>(n, 1);
          sum = {k.dot(y.data(), row<T>(n, 8).data(), n)};
          k.scale(y.data(), y.data(), factor, n);
        },
        [=](int64_t n, Row& y, Numbers& sum) {
          const Row a = row<T>(n, 1), b = row<T>(n, 8);
          sum = {cpu::sum_lanes<A>(n, [&](int64_t i) { return A(a[size_t(i)]) * A(b[size_t(i)]); })};
          for (const T v : a) y.push_back(T(A(v) * factor));
        });
  }
}

TEST_CASE("rows: the exponential is that of ops/cpu/exp.h") {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < (uint64_t(1) << 32); bits += 4099) x.push_back(std::bit_cast<float>(uint32_t(bits)));
  std::vector<float> p(x.size());
  each_set<float>([&](const char* name, const cpu::RowKernels<float>& kernels) {
    kernels.exp(p.data(), x.data(), 1, 0, int64_t(x.size()));
    size_t different = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const float expected = cpu::exp(x[i]);
      different += std::memcmp(&p[i], &expected, sizeof expected) != 0 && !(p[i] != p[i] && expected != expected);
    }
    INFO(name);
    CHECK(different == 0);
  });
}
