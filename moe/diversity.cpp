#include "moe/diversity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "autograd/tape.h"
#include "core/copy.h"
#include "moe/ordered_sum.h"

namespace agon {

namespace {

/// The rows of one token as unit vectors, and the norms they were divided by.
template <class A>
struct UnitRows {
  std::vector<std::vector<A>> u;
  std::vector<A> norm;
  std::vector<int64_t> row;

  UnitRows(const Tensor& rows, const Plan& plan, int64_t t) {
    const auto offset = plan.token_offsets.data<const int32_t>(), row_of = plan.row_of_pair.data<const int32_t>();
    const int64_t D = rows.shape(1);
    visit_float(rows.dtype(), [&]<class T>() {
      for (auto i = size_t(offset[size_t(t)]); i < size_t(offset[size_t(t) + 1]); ++i) {
        const T* const o = rows.data<const T>().data() + row_of[i] * D;
        A squares = 0;
        for (int64_t d = 0; d < D; ++d) squares += A(o[d]) * A(o[d]);
        norm.push_back(std::max(std::sqrt(squares), A(1e-12)));
        auto& unit = u.emplace_back(static_cast<size_t>(D));
        for (int64_t d = 0; d < D; ++d) unit[size_t(d)] = A(o[d]) / norm.back();
        row.push_back(row_of[i]);
      }
    });
  }
  A dot(size_t i, size_t j) const {
    A sum = 0;
    for (size_t d = 0; d < u[i].size(); ++d) sum += u[i][d] * u[j][d];
    return sum;
  }
};

/// What each token's mean cosine counts: T_g / (T C_g) in a group with C_g tokens that have at least two rows.
std::vector<double> weight_of_tokens(const Plan& plan, const Tensor& scope_offsets) {
  const auto offset = plan.token_offsets.data<const int32_t>(), scope = scope_offsets.data<const int32_t>();
  std::vector<double> weight(offset.size() - 1);
  for (size_t g = 0; g + 1 < scope.size(); ++g) {
    const auto begin = size_t(scope[g]), end = size_t(scope[g + 1]);
    double counted = 0;
    for (size_t t = begin; t < end; ++t) counted += offset[t + 1] - offset[t] >= 2;
    std::fill(weight.begin() + scope[g], weight.begin() + scope[g + 1],
              double(end - begin) / double(weight.size()) / std::max(counted, 1.0));
  }
  return weight;
}

}  // namespace

void Diversity::Forward::cpu(const Tensor& loss, const Tensor& rows, const Plan& plan, const Tensor& scope_offsets) {
  const std::vector<double> weight = weight_of_tokens(plan, scope_offsets);
  visit_accumulator(accumulator_dtype(rows.dtype()), [&]<class A>() {
    fill(loss, ordered_sum(plan.token_offsets.size() - 1, [&](int64_t begin, int64_t end) {
           double sum = 0;
           for (int64_t t = begin; t < end; ++t) {
             const UnitRows<A> rows_of(rows, plan, t);
             const size_t n = rows_of.u.size();
             double cosines = 0;
             for (size_t i = 0; i < n; ++i)
               for (size_t j = i + 1; j < n; ++j) cosines += 2 * double(rows_of.dot(i, j));
             if (n >= 2) sum += weight[size_t(t)] * cosines / double(n * (n - 1));
           }
           return sum;
         }));
  });
}

void Diversity::Backward::cpu(const Tensor& drows, const Tensor& dy, const Tensor& rows, const Plan& plan,
                              const Tensor& scope_offsets) {
  const int64_t D = rows.shape(1);
  const double slope = dy.item();
  const std::vector<double> weight = weight_of_tokens(plan, scope_offsets);
  drows.zero();
  visit_float(rows.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    parallel_ranges(plan.token_offsets.size() - 1, 32, [&](int64_t begin, int64_t end) {
      std::vector<A> others(static_cast<size_t>(D));
      for (int64_t t = begin; t < end; ++t) {
        const UnitRows<A> of(rows, plan, t);
        const size_t n = of.u.size();
        if (n < 2) continue;
        const A each = A(2 * slope * weight[size_t(t)] / double(n * (n - 1)));
        for (size_t i = 0; i < n; ++i) {
          std::ranges::fill(others, A(0));
          A along = 0;
          for (size_t j = 0; j < n; ++j) {
            if (j == i) continue;
            for (size_t d = 0; d < others.size(); ++d) others[d] += of.u[j][d];
            along += of.dot(i, j);
          }
          T* const to = drows.data<T>().data() + of.row[i] * D;
          for (size_t d = 0; d < others.size(); ++d) to[d] = T(each * (others[d] - of.u[i][d] * along) / of.norm[i]);
        }
      }
    });
  });
}

Tensor diversity(const Tensor& rows, const Plan& plan, const Tensor& scope_offsets) {
  Tensor loss({1}, accumulator_dtype(rows.dtype()), rows.device());
  run<Diversity::Forward>(rows.device(), loss, rows, plan, scope_offsets);
  return record("diversity", {&rows}, loss, [rows, plan, scope_offsets](Gradients& g, const Tensor& dy) {
    Tensor drows(rows.shape(), rows.dtype(), rows.device());
    run<Diversity::Backward>(rows.device(), drows, dy, rows, plan, scope_offsets);
    g.add(rows, drows);
  });
}

}  // namespace agon
