#include "moe/dispatch.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "autograd/tape.h"
#include "core/parallel.h"
#include "ops/cpu/rows.h"

namespace agon {

namespace {

/// Rows of a task of a parallel loop.
int64_t grain(int64_t width) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width)); }

/// Asks for a row that will be read next: rows lie anywhere, so the processor cannot guess which.
template <class T>
void fetch(const T* row, int64_t width) {
  for (int64_t i = 0; i < width; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(row + i);
}

/// Elements of one row: the extents after the first.
int64_t width_of(const Tensor& x) { return x.shape().with(0, 1).size(); }

/// y[n] = x[source(n)], 0 where source(n) is negative.
template <class F>
void copy_rows(const Tensor& y, const Tensor& x, F&& source) {
  const auto bytes = size_t(width_of(y) * size_of(y.dtype()));
  auto* const to = static_cast<std::byte*>(const_cast<void*>(y.address()));
  const auto* const from = static_cast<const std::byte*>(x.address());
  parallel_ranges(y.shape(0), grain(width_of(y)), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t at = source(n);
      if (at < 0)
        std::memset(to + size_t(n) * bytes, 0, bytes);
      else
        std::memcpy(to + size_t(n) * bytes, from + size_t(at) * bytes, bytes);
    }
  });
}

int64_t tokens_of(const Plan& plan) { return plan.token_offsets.size() - 1; }

void check_rows(const char* op, const Tensor& rows, const Plan& plan) {
  check(rows.shape().rank() == 2 && rows.shape(0) == plan.pair_of_row.size(), op, ": rows ", rows.shape(),
        " do not go with a plan of ", plan.pair_of_row.size(), " rows");
}

/// y[n] = x[forth[n]]; the inverse of `forth` is `back`. x may be longer or shorter than the plan's bound, not than
/// what is in use.
Tensor reorder(const char* name, const Tensor& x, const Plan& plan, const Tensor& forth, const Tensor& back) {
  if (x.device().kind == Device::cpu)
    check(x.shape(0) >= plan.offsets.data<const int32_t>().back(), name, ": ", x.shape(), " beside a plan of ",
          plan.offsets.data<const int32_t>().back(), " pairs");
  Tensor y(x.shape().with(0, forth.size()), x.dtype(), x.device());
  run<Dispatch::Gather>(x.device(), y, x, forth);
  return record(name, {&x}, y, [x = x.without_data(), back](Gradients& g, const Tensor& dy) {
    Tensor dx(x.shape(), x.dtype(), x.device());
    run<Dispatch::Gather>(x.device(), dx, dy, back);
    g.add(x, dx);
  });
}

}  // namespace

void Dispatch::Permute::cpu(const Tensor& rows, const Tensor& x, const Plan& plan) {
  const auto pair_of_row = plan.pair_of_row.data<const int32_t>(),
             token_of_pair = plan.token_of_pair.data<const int32_t>();
  copy_rows(rows, x,
            [&](int64_t n) { return pair_of_row[size_t(n)] < 0 ? -1 : token_of_pair[size_t(pair_of_row[size_t(n)])]; });
}

void Dispatch::Gather::cpu(const Tensor& y, const Tensor& x, const Tensor& index) {
  const auto at = index.data<const int32_t>();
  copy_rows(y, x, [&](int64_t n) { return size_t(n) < at.size() ? at[size_t(n)] : -1; });
}

void Dispatch::Combine::cpu(const Tensor& y, const Tensor& rows, const Tensor& weight, const Plan& plan) {
  const auto offset = plan.token_offsets.data<const int32_t>(), row_of_pair = plan.row_of_pair.data<const int32_t>();
  const int64_t D = width_of(y);
  visit_float(y.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    T* const out = y.data<T>().data();
    const T* const in = rows.data<const T>().data();
    const A* const factor = weight ? weight.data<const A>().data() : nullptr;
    const auto& kernels = cpu::row_kernels<T>();
    parallel_ranges(y.shape(0), grain(D), [&](int64_t begin, int64_t end) {
      std::vector<const T*> summed;
      for (int64_t t = begin; t < end; ++t) {
        const int32_t first = offset[size_t(t)], last = offset[size_t(t) + 1];
        summed.clear();
        for (int32_t i = first; i < last; ++i) summed.push_back(in + row_of_pair[size_t(i)] * D);
        for (int32_t i = last; t + 1 < end && i < offset[size_t(t) + 2]; ++i) fetch(in + row_of_pair[size_t(i)] * D, D);
        kernels.weighted_sum(out + t * D, summed.data(), factor ? factor + first : nullptr, last - first, D);
      }
    });
  });
}

void Dispatch::CombineBackward::cpu(const Tensor& drows, const Tensor& dweight, const Tensor& dy, const Tensor& rows,
                                    const Tensor& weight, const Plan& plan) {
  const auto pair_of_row = plan.pair_of_row.data<const int32_t>(),
             token_of_pair = plan.token_of_pair.data<const int32_t>();
  const int64_t D = width_of(rows);
  dweight.zero();
  visit_float(rows.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const A* const w = weight.data<const A>().data();
    A* const dw = dweight.data<A>().data();
    const auto& kernels = cpu::row_kernels<T>();
    parallel_ranges(rows.shape(0), grain(D), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        T* const to = drows.data<T>().data() + n * D;
        const int32_t i = pair_of_row[size_t(n)];
        if (i < 0) {
          std::fill_n(to, D, T());
          continue;
        }
        const T* const from = dy.data<const T>().data() + token_of_pair[size_t(i)] * D;
        const T* const row = rows.data<const T>().data() + n * D;
        if (n + 1 < end && pair_of_row[size_t(n) + 1] >= 0) {
          fetch(dy.data<const T>().data() + token_of_pair[size_t(pair_of_row[size_t(n) + 1])] * D, D);
          fetch(row + D, D);
        }
        dw[i] = kernels.dot_scale(to, from, row, w[i], D);
      }
    });
  });
}

Tensor permute(const Tensor& x, const Plan& plan) {
  check(x.shape().rank() == 2 && x.shape(0) == tokens_of(plan), "permute: x ", x.shape(),
        " does not go with a plan of ", tokens_of(plan), " tokens");
  Tensor rows({plan.pair_of_row.size(), x.shape(1)}, x.dtype(), x.device());
  run<Dispatch::Permute>(x.device(), rows, x, plan);
  return record("permute", {&x}, rows, [x = x.without_data(), plan](Gradients& g, const Tensor& drows) {
    Tensor dx(x.shape(), x.dtype(), x.device());
    run<Dispatch::Combine>(x.device(), dx, drows, Tensor(), plan);
    g.add(x, dx);
  });
}

Tensor combine(const Tensor& rows, const Plan& plan) {
  check_rows("combine", rows, plan);
  Tensor y({tokens_of(plan), rows.shape(1)}, rows.dtype(), rows.device());
  run<Dispatch::Combine>(rows.device(), y, rows, Tensor(), plan);
  return record("combine", {&rows}, y, [rows = rows.without_data(), plan](Gradients& g, const Tensor& dy) {
    Tensor drows(rows.shape(), rows.dtype(), rows.device());
    run<Dispatch::Permute>(rows.device(), drows, dy, plan);
    g.add(rows, drows);
  });
}

Tensor combine(const Tensor& rows, const Tensor& weight, const Plan& plan) {
  check_rows("combine", rows, plan);
  check(weight.shape() == plan.row_of_pair.shape() && weight.dtype() == accumulator_dtype(rows.dtype()),
        "combine: weight ", weight.shape(), " of ", weight.dtype(), ", expected ", plan.row_of_pair.shape(), " of ",
        accumulator_dtype(rows.dtype()));
  Tensor y({tokens_of(plan), rows.shape(1)}, rows.dtype(), rows.device());
  run<Dispatch::Combine>(rows.device(), y, rows, weight, plan);
  return record("combine", {&rows, &weight}, y, [rows, weight, plan](Gradients& g, const Tensor& dy) {
    Tensor drows(rows.shape(), rows.dtype(), rows.device()), dweight(weight.shape(), weight.dtype(), weight.device());
    run<Dispatch::CombineBackward>(rows.device(), drows, dweight, dy, rows, weight, plan);
    g.add(rows, drows);
    g.add(weight, dweight);
  });
}

Tensor by_row(const Tensor& of_pairs, const Plan& plan) {
  return reorder("by_row", of_pairs, plan, plan.pair_of_row, plan.row_of_pair);
}

Tensor by_pair(const Tensor& of_rows, const Plan& plan) {
  return reorder("by_pair", of_rows, plan, plan.row_of_pair, plan.pair_of_row);
}

}  // namespace agon
