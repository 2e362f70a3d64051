#include "ops/cpu/rows.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "ops/cpu/exp.h"
#include "ops/cpu/lanes.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

namespace {

// Below, at and above the sixteen lanes.
const int64_t kLengths[] = {0, 1, 3, 15, 16, 17, 31, 64, 100, 257};

template <class T>
std::vector<T> finite_row(int64_t n, uint64_t seed) {
  const Tensor drawn = random({n}, seed, 3, DType::f32);
  std::vector<T> x;
  for (const float v : drawn.data<const float>()) x.push_back(T(v));
  return x;
}

/// Draws, with what is awkward among them.
template <class T>
std::vector<T> row(int64_t n, uint64_t seed) {
  std::vector<T> x = finite_row<T>(n, seed);
  const float awkward[] = {0.f, -0.f, 90.f, -110.f, 1e-40f, std::numeric_limits<float>::infinity()};
  for (int64_t i = 20; i < n; i += 13) x[size_t(i)] = T(awkward[size_t(i + int64_t(seed)) % 6]);
  return x;
}

template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
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
      INFO(std::string(name), " ", dtype_of<T>, " n ", n);
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
  SUBCASE("swiglu_weighed is swiglu, dot_scale and swiglu_backward") {
    check_sets<T>(
        [=](const Kernels& k, int64_t n, Row& d, Numbers& product) {
          d = finite_row<T>(n, 1);
          for (const uint64_t seed : {2, 3, 4}) {
            const Row more = finite_row<T>(n, seed);
            d.insert(d.end(), more.begin(), more.end());
          }
          product = {k.swiglu_weighed(d.data(), d.data() + n, d.data() + 2 * n, d.data() + 3 * n, factor, n)};
        },
        [=](int64_t n, Row& d, Numbers& product) {
          Row gate = finite_row<T>(n, 2), up = finite_row<T>(n, 3), slopes = finite_row<T>(n, 4);
          const Kernels& k = cpu::row_kernels<T>();
          d.resize(size_t(n));
          k.swiglu(d.data(), gate.data(), up.data(), n);
          product = {k.dot_scale(slopes.data(), slopes.data(), d.data(), factor, n)};
          k.swiglu_backward(gate.data(), up.data(), slopes.data(), gate.data(), up.data(), n);
          for (const Row* more : {&gate, &up, &slopes}) d.insert(d.end(), more->begin(), more->end());
        });
  }
  SUBCASE("sums of answers and their slopes") {
    check_sets<T>(
        [=](const Kernels& k, int64_t n, Row& y, Numbers& sums) {
          const Row x = row<T>(n, 1);
          y.resize(x.size() * 2);
          k.softplus_slopes(y.data(), x.data(), factor, n);
          k.silu_slopes(y.data() + n, x.data(), factor, n);
          sums = {k.softplus_sum(x.data(), n), k.silu_sum(x.data(), n), k.relu_sum(x.data(), n)};
        },
        [=](int64_t n, Row& y, Numbers& sums) {
          const Row x = row<T>(n, 1);
          const auto at = [&](int64_t i) { return A(x[size_t(i)]); };
          const auto s = [&](int64_t i) { return A(1) / (A(1) + cpu::exp(-at(i))); };
          for (int64_t i = 0; i < n; ++i) y.push_back(T(factor / (A(1) + cpu::exp(-at(i)))));
          for (int64_t i = 0; i < n; ++i) y.push_back(T(factor * (s(i) * (A(1) + at(i) * (A(1) - s(i))))));
          sums = {cpu::row_kernels<T>().softplus_sum(x.data(), n),
                  cpu::sum_lanes<A>(n, [&](int64_t i) { return at(i) / (A(1) + cpu::exp(-at(i))); }),
                  cpu::sum_lanes<A>(n, [&](int64_t i) { return std::max(at(i), A(0)); })};
        });
  }
  SUBCASE("max") {
    check_sets<T>(
        [=](const Kernels& k, int64_t n, Row&, Numbers& out) { out = {k.max(mean, row<T>(n, 6).data(), factor, n)}; },
        [=](int64_t n, Row&, Numbers& out) {
          const Row x = row<T>(n, 6);
          out = {cpu::max_lanes<A>(mean, n, [&](int64_t i) { return A(x[size_t(i)]) * factor; })};
        });
  }
  SUBCASE("sigmoid, exp_scaled, exp_sum") {
    check_sets<T>(
        [=](const Kernels& k, int64_t n, Row& y, Numbers& sum) {
          const Row x = row<T>(n, 1);
          y.resize(x.size() * 2);
          k.sigmoid(y.data(), x.data(), n);
          k.exp_scaled(y.data() + n, x.data(), top, mean, factor, n);
          sum = {k.exp_sum(x.data(), top, n)};
        },
        [=](int64_t n, Row& y, Numbers& sum) {
          const Row x = row<T>(n, 1);
          for (const T v : x) y.push_back(T(A(1) / (A(1) + cpu::exp(-A(v)))));
          for (const T v : x) y.push_back(T(cpu::exp(A(v) - top) * mean * factor));
          sum = {cpu::sum_lanes<A>(n, [&](int64_t i) { return cpu::exp(A(x[size_t(i)]) - top); })};
        });
  }
  SUBCASE("softmax and its gradient") {
    check_sets<T>(
        [](const Kernels& k, int64_t n, Row& y, Numbers&) {
          const Row x = finite_row<T>(n, 1), dy = finite_row<T>(n, 2);
          y.resize(x.size() * 2);
          k.softmax(y.data(), x.data(), n);
          k.softmax_backward(y.data() + n, dy.data(), y.data(), n);
        },
        [](int64_t n, Row& y, Numbers&) {
          const Row x = finite_row<T>(n, 1), dy = finite_row<T>(n, 2);
          const A highest =
              cpu::max_lanes<A>(-std::numeric_limits<A>::infinity(), n, [&](int64_t i) { return A(x[size_t(i)]); });
          const A inverse = A(1) / cpu::sum_lanes<A>(n, [&](int64_t i) { return cpu::exp(A(x[size_t(i)]) - highest); });
          for (const T v : x) y.push_back(T(cpu::exp(A(v) - highest) * inverse));
          if (n == 0) return;
          const A base = A(dy[size_t(std::ranges::max_element(y, {}, [](T v) { return A(v); }) - y.begin())]);
          const auto slope = [&](int64_t i) { return A(dy[size_t(i)]) - base; };
          const A middle = cpu::sum_lanes<A>(n, [&](int64_t i) { return A(y[size_t(i)]) * slope(i); });
          for (int64_t i = 0; i < n; ++i) y.push_back(T(A(y[size_t(i)]) * (slope(i) - middle)));
        });
  }
  SUBCASE("rms_norm and its gradients") {
    check_sets<T>(
        [=](const Kernels& k, int64_t n, Row& y, Numbers& out) {
          const Row x = finite_row<T>(n, 1), dy = finite_row<T>(n, 2);
          const Numbers gain = finite_row<A>(n, 3);
          out = finite_row<A>(n, 4);
          y.resize(x.size() * 2);
          const A r = k.rms_norm(y.data(), x.data(), gain.data(), A(1e-5), n);
          k.rms_norm_backward(y.data() + n, dy.data(), x.data(), gain.data(), r, n);
          k.add_gain(out.data(), dy.data(), x.data(), A(0), r, n);
          out.push_back(r);
        },
        [=](int64_t n, Row& y, Numbers& out) {
          const Row x = finite_row<T>(n, 1), dy = finite_row<T>(n, 2);
          const Numbers gain = finite_row<A>(n, 3);
          out = finite_row<A>(n, 4);
          const auto at = [&](int64_t i) { return A(x[size_t(i)]); };
          const auto slope = [&](int64_t i) { return A(dy[size_t(i)]) * gain[size_t(i)]; };
          const A squares = cpu::sum_lanes<A>(n, [&](int64_t i) { return at(i) * at(i); });
          const A r = A(1) / std::sqrt(squares / A(n) + A(1e-5));
          for (int64_t i = 0; i < n; ++i) y.push_back(T(at(i) * r * gain[size_t(i)]));
          const A along = cpu::sum_lanes<A>(n, [&](int64_t i) { return slope(i) * at(i); }) * r * r / A(n);
          for (int64_t i = 0; i < n; ++i) y.push_back(T(r * (slope(i) - at(i) * along)));
          for (int64_t i = 0; i < n; ++i) out[size_t(i)] += A(dy[size_t(i)]) * (at(i) * r);
          out.push_back(r);
        });
  }
  SUBCASE("layer_norm and its gradients") {
    check_sets<T>(
        [=](const Kernels& k, int64_t n, Row& y, Numbers& out) {
          const Row x = finite_row<T>(n, 1), dy = finite_row<T>(n, 2);
          const Numbers gain = finite_row<A>(n, 3), bias = finite_row<A>(n, 5);
          out = finite_row<A>(n, 4);
          A statistics[2];
          y.resize(x.size() * 3);
          k.layer_norm(y.data(), statistics, x.data(), gain.data(), bias.data(), A(1e-5), n);
          k.layer_norm(y.data() + n, statistics, x.data(), gain.data(), nullptr, A(1e-5), n);
          k.layer_norm_backward(y.data() + 2 * n, dy.data(), x.data(), gain.data(), statistics[0], statistics[1], n);
          k.add_gain(out.data(), dy.data(), x.data(), statistics[0], statistics[1], n);
          out.insert(out.end(), statistics, statistics + 2);
        },
        [=](int64_t n, Row& y, Numbers& out) {
          const Row x = finite_row<T>(n, 1), dy = finite_row<T>(n, 2);
          const Numbers gain = finite_row<A>(n, 3), bias = finite_row<A>(n, 5);
          out = finite_row<A>(n, 4);
          const auto at = [&](int64_t i) { return A(x[size_t(i)]); };
          const auto slope = [&](int64_t i) { return A(dy[size_t(i)]) * gain[size_t(i)]; };
          const A m = cpu::sum_lanes<A>(n, at) / A(n);
          const A squares = cpu::sum_lanes<A>(n, [&](int64_t i) { return (at(i) - m) * (at(i) - m); });
          const A r = A(1) / std::sqrt(squares / A(n) + A(1e-5));
          const auto normed = [&](int64_t i) { return (at(i) - m) * r; };
          for (int64_t i = 0; i < n; ++i) y.push_back(T(normed(i) * gain[size_t(i)] + bias[size_t(i)]));
          for (int64_t i = 0; i < n; ++i) y.push_back(T(normed(i) * gain[size_t(i)]));
          const A even = cpu::sum_lanes<A>(n, slope) / A(n);
          const A along = cpu::sum_lanes<A>(n, [&](int64_t i) { return slope(i) * normed(i); }) / A(n);
          for (int64_t i = 0; i < n; ++i) y.push_back(T(r * (slope(i) - even - normed(i) * along)));
          for (int64_t i = 0; i < n; ++i) out[size_t(i)] += A(dy[size_t(i)]) * normed(i);
          out.insert(out.end(), {m, r});
        });
  }
  SUBCASE("rotate, in place") {
    check_sets<T>(
        [](const Kernels& k, int64_t n, Row& y, Numbers&) {
          y = row<T>(2 * n, 1);
          k.rotate(y.data(), y.data() + n, y.data(), y.data() + n, row<A>(n, 2).data(), row<A>(n, 3).data(), A(-1), n);
        },
        [](int64_t n, Row& y, Numbers&) {
          const Row x = row<T>(2 * n, 1);
          const Numbers cosine = row<A>(n, 2), sine = row<A>(n, 3);
          y.resize(x.size());
          for (size_t i = 0; i < cosine.size(); ++i) {
            const A u = A(x[i]), v = A(x[cosine.size() + i]), c = cosine[i], s = A(-1) * sine[i];
            y[i] = T(u * c - v * s);
            y[cosine.size() + i] = T(v * c + u * s);
          }
        });
  }
  SUBCASE("dot, scale, dot_scale") {
    check_sets<T>(
        [=](const Kernels& k, int64_t n, Row& y, Numbers& sum) {
          y = row<T>(n, 1);
          const Row b = row<T>(n, 8);
          sum = {k.dot(y.data(), b.data(), n)};
          k.scale(y.data(), y.data(), factor, n);
          sum.push_back(k.dot_scale(y.data(), y.data(), b.data(), mean, n));
        },
        [=](int64_t n, Row& y, Numbers& sum) {
          y = row<T>(n, 1);
          const Row b = row<T>(n, 8);
          const auto term = [&](int64_t i) { return A(y[size_t(i)]) * A(b[size_t(i)]); };
          sum = {cpu::sum_lanes<A>(n, term)};
          for (T& v : y) v = T(A(v) * factor);
          sum.push_back(cpu::sum_lanes<A>(n, term));
          for (T& v : y) v = T(A(v) * mean);
        });
  }
  SUBCASE("weighted_sum") {
    for (const int64_t count : {0, 1, 3})
      for (const bool weighted : {true, false}) {
        const A weight[] = {factor, mean, top};
        check_sets<T>(
            [&](const Kernels& k, int64_t n, Row& y, Numbers&) {
              const Row rows[] = {row<T>(n, 1), row<T>(n, 2), row<T>(n, 3)};
              const T* const each[] = {rows[0].data(), rows[1].data(), rows[2].data()};
              y.resize(size_t(n));
              k.weighted_sum(y.data(), each, weighted ? weight : nullptr, count, n);
            },
            [&](int64_t n, Row& y, Numbers&) {
              Numbers sums(static_cast<size_t>(n));
              for (int64_t j = 0; j < count; ++j) {
                const Row x = row<T>(n, uint64_t(1 + j));
                for (size_t i = 0; i < x.size(); ++i) sums[i] += weighted ? weight[j] * A(x[i]) : A(x[i]);
              }
              for (const A v : sums) y.push_back(T(v));
            });
      }
  }
}

TEST_CASE("rows: gelu's normal distribution has digits on both sides of 0, the same on every instruction set") {
  std::vector<float> x, first;
  for (float v = -14.4f; v < 14.4f; v += 0.001f) x.push_back(v);
  for (const float v : {0.f, -0.f, 1e-30f, -1e30f, 1e30f}) x.push_back(v);
  const auto n = int64_t(x.size());
  const std::vector<float> ones(x.size(), 1);
  std::vector<float> y(2 * x.size());
  each_set<float>([&](const char* name, const cpu::RowKernels<float>& kernels) {
    kernels.gelu(y.data(), x.data(), n);
    kernels.gelu_backward(y.data() + n, ones.data(), x.data(), n);
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double v = x[i], expected = v * std::erfc(-v / std::sqrt(2.)) / 2;
      if (std::abs(expected) > 1e-30) worst = std::max(worst, std::abs(double(y[i]) / expected - 1));
    }
    INFO(std::string(name));
    CHECK(worst < 4e-7);
    if (first.empty()) first = y;
    CHECK(same(y, first));
    CHECK(y[x.size() - 2] == 0);
    CHECK(y[x.size() - 1] == 1e30f);
  });
}

TEST_CASE_TEMPLATE("rows: AdamW and the sum of squares, the same on every instruction set", A, float, double) {
  const cpu::UpdateNumbers<A> c{A(0.9), A(0.1), A(0.95), A(0.05), A(1.7), A(2.3), A(1e-3), A(1e-8)};
  const A scale = A(0.7), decay = A(0.1);
  const auto check_kernels = [&](const char* name, const cpu::UpdateKernels<A>& kernels) {
    for (const int64_t n : kLengths) {
      INFO(std::string(name), " n ", n);
      const std::vector<A> g = finite_row<A>(n, 1);
      std::vector<A> w = finite_row<A>(n, 2), m = finite_row<A>(n, 3), v = finite_row<A>(n, 4), w2, m2, v2;
      for (A& s : v) s = std::abs(s);
      w2 = w, m2 = m, v2 = v;
      std::vector<bf16> rounded(w.size()), rounded2;
      const bool rounds = std::is_same_v<A, float>;
      kernels.adamw(w.data(), m.data(), v.data(), g.data(), rounds ? rounded.data() : nullptr, c, scale, decay, n);
      for (size_t i = 0; i < g.size(); ++i) {
        const A d = g[i] * scale;
        m2[i] = c.beta1 * m2[i] + c.rest1 * d;
        v2[i] = c.beta2 * v2[i] + c.rest2 * d * d;
        w2[i] -= c.rate * (m2[i] * c.correction1 / (std::sqrt(v2[i] * c.correction2) + c.epsilon) + decay * w2[i]);
        rounded2.push_back(rounds ? bf16(w2[i]) : bf16());
      }
      CHECK(same(w, w2));
      CHECK(same(m, m2));
      CHECK(same(v, v2));
      CHECK(same(rounded, rounded2));
      CHECK(kernels.square_sum(g.data(), n) ==
            cpu::sum_lanes<double>(n, [&](int64_t i) { return double(g[size_t(i)]) * double(g[size_t(i)]); }));
    }
  };
  if constexpr (std::is_same_v<A, double>)
    check_kernels("double", cpu::kUpdateDouble);
  else
    for (int i = 0; const cpu::RowInstructions* set = cpu::row_instructions(i); ++i)
      check_kernels(set->name, set->update);
}

TEST_CASE("rows: the exponential is that of ops/cpu/exp.h") {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < (uint64_t(1) << 32); bits += 4099) x.push_back(std::bit_cast<float>(uint32_t(bits)));
  std::vector<float> p(x.size());
  each_set<float>([&](const char* name, const cpu::RowKernels<float>& kernels) {
    kernels.exp_scaled(p.data(), x.data(), 0, 1, 1, int64_t(x.size()));
    size_t different = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const float expected = cpu::exp(x[i]);
      different += std::memcmp(&p[i], &expected, sizeof expected) != 0 && !(p[i] != p[i] && expected != expected);
    }
    INFO(std::string(name));
    CHECK(different == 0);
  });
}

TEST_CASE("rows: softplus is right to 3e-7 of it, from far below 0 to far above") {
  for (double x = -95; x < 95; x += 0.0137) {
    const float v = float(x);
    const double expected = std::max(double(v), 0.0) + std::log1p(std::exp(-std::abs(double(v))));
    for (int i = 0; const cpu::RowInstructions* set = cpu::row_instructions(i); ++i) {
      const double found = set->f32.softplus_sum(&v, 1);
      CAPTURE(v);
      REQUIRE(std::abs(found - expected) <= 3e-7 * expected + 1e-38);
    }
  }
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (int i = 0; const cpu::RowInstructions* set = cpu::row_instructions(i); ++i) {
    CHECK(std::isnan(set->f32.softplus_sum(&nan, 1)));
    CHECK(std::isnan(set->f32.relu_sum(&nan, 1)));
  }
}
