#include "moe/diversity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "autograd/tape.h"
#include "core/copy.h"
#include "moe/ordered_sum.h"
#include "ops/cpu/rows.h"

namespace agon {

namespace {

/// The rows of one token after the other: where they are, and their norms.
template <class T>
class RowsOfToken {
 public:
  using A = Accumulator<T>;

  RowsOfToken(const Tensor& rows, const Plan& plan)
      : rows_(rows.data<const T>().data()),
        D_(rows.shape(1)),
        offset_(plan.token_offsets.data<const int32_t>()),
        row_of_(plan.row_of_pair.data<const int32_t>()) {}

  void take(int64_t t) {
    row.clear();
    norm.clear();
    for (auto i = size_t(offset_[size_t(t)]); i < size_t(offset_[size_t(t) + 1]); ++i) {
      row.push_back(rows_ + row_of_[i] * D_);
      norm.push_back(std::max(std::sqrt(dot(row.back(), row.back())), A(1e-12)));
    }
  }
  A cosine(size_t i, size_t j) const { return dot(row[i], row[j]) / (norm[i] * norm[j]); }

  std::vector<const T*> row;
  std::vector<A> norm;

 private:
  A dot(const T* a, const T* b) const { return cpu::row_kernels<T>().dot(a, b, D_); }

  const T* rows_;
  int64_t D_;
  std::span<const int32_t> offset_, row_of_;
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
  visit_float(rows.dtype(), [&]<class T>() {
    fill(loss, ordered_sum(plan.token_offsets.size() - 1, [&](int64_t begin, int64_t end) {
           double sum = 0;
           RowsOfToken<T> of(rows, plan);
           for (int64_t t = begin; t < end; ++t) {
             of.take(t);
             const size_t n = of.row.size();
             double cosines = 0;
             for (size_t i = 0; i < n; ++i)
               for (size_t j = i + 1; j < n; ++j) cosines += 2 * double(of.cosine(i, j));
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
    const T* const first = rows.data<const T>().data();
    parallel_ranges(plan.token_offsets.size() - 1, 32, [&](int64_t begin, int64_t end) {
      RowsOfToken<T> of(rows, plan);
      std::vector<A> share;  // of each row in the gradient of one
      for (int64_t t = begin; t < end; ++t) {
        of.take(t);
        const size_t n = of.row.size();
        if (n < 2) continue;
        const A each = A(2 * slope * weight[size_t(t)] / double(n * (n - 1)));
        share.resize(n);
        for (size_t i = 0; i < n; ++i) {
          A along = 0;
          for (size_t j = 0; j < n; ++j) {
            if (j == i) continue;
            share[j] = each / (of.norm[i] * of.norm[j]);
            along += of.cosine(i, j);
          }
          share[i] = -each * along / (of.norm[i] * of.norm[i]);
          cpu::row_kernels<T>().weighted_sum(drows.data<T>().data() + (of.row[i] - first), of.row.data(), share.data(),
                                             int64_t(n), D);
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
