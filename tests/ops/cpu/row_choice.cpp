#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "ops/cpu/rows.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE_TEMPLATE("rows: the places of the largest are those of a stable sort, on every instruction set", A, float,
                   double) {
  const auto check_set = [](const char* name, const cpu::ChoiceKernels<A>& choice) {
    CAPTURE(std::string(name));
    for (const int64_t rows : {1, 15, 16, 33})
      for (const int64_t n : {1, 2, 8, 65})
        for (int64_t k = 1; k <= n; k *= 2) {
          const Tensor drawn = random({rows * n}, uint64_t(n), 3, dtype_of<A>);
          const auto values = drawn.data<const A>();
          std::vector<A> x(values.begin(), values.end());
          for (size_t i = 0; i < x.size(); i += 3) x[i] = A(int64_t(i) % 5 - 2);  // ties
          for (size_t i = 1; i < x.size(); i += 7) x[i] = i % 2 ? A(0) : -A(0);
          for (size_t i = 3; i < x.size(); i += 13) x[i] = (i % 2 ? 1 : -1) * std::numeric_limits<A>::infinity();
          for (size_t i = 2; i < x.size(); i += 11) x[i] = std::numeric_limits<A>::quiet_NaN();
          std::vector<int32_t> index(size_t(rows * k)), expected;
          std::vector<A> space(size_t(cpu::choice_space(n, k)));
          choice.top_k(index.data(), x.data(), rows, n, k, space.data());
          for (int64_t r = 0; r < rows; ++r) {
            const auto at = [&](int32_t i) { return x[size_t(r * n + i)]; };
            std::vector<int32_t> order(static_cast<size_t>(n));
            std::iota(order.begin(), order.end(), 0);
            std::ranges::stable_sort(order, [&](int32_t a, int32_t b) {
              return at(a) > at(b) || (std::isnan(at(b)) && !std::isnan(at(a)));
            });
            expected.insert(expected.end(), order.begin(), order.begin() + k);
          }
          CHECK(index == expected);
        }
  };
  if constexpr (std::is_same_v<A, double>)
    check_set("double", cpu::kChoiceDouble);
  else
    for (int i = 0; const cpu::RowInstructions* set = cpu::row_instructions(i); ++i) check_set(set->name, set->choice);
}
