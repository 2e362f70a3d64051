#include "moe/two_sources.h"

#include <algorithm>
#include <vector>

#include "core/parallel.h"
#include "ops/cpu/rows.h"

namespace agon {

namespace {

int64_t width_of(const Tensor& x) { return x.shape().with(0, 1).size(); }

/// Rows of a task of a parallel loop.
int64_t grain(int64_t width) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width)); }

template <class T>
struct Rows {
  const T *first, *second;
  int64_t width;

  Rows(const Tensor& a, const Tensor& b, int64_t n)
      : first(a ? a.data<const T>().data() : nullptr), second(b ? b.data<const T>().data() : nullptr), width(n) {}
  const T* operator[](int32_t at) const { return at >= 0 ? first + at * width : second + int64_t(~at) * width; }
};

}  // namespace

void TwoSources::Gather::cpu(const Tensor& y, const Tensor& first, const Tensor& second, const Tensor& index) {
  const int64_t D = width_of(y);
  const auto at = index.data<const int32_t>();
  visit_float(y.dtype(), [&]<class T>() {
    const Rows<T> rows(first, second, D);
    T* const out = y.data<T>().data();
    parallel_ranges(y.shape(0), grain(D), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const int32_t from = at[size_t(n)];
        if (from == kNone)
          std::fill_n(out + n * D, D, T());
        else if (D == 1)
          out[n] = *rows[from];
        else
          std::copy_n(rows[from], D, out + n * D);
      }
    });
  });
}

void TwoSources::Sum::cpu(const Tensor& y, const Tensor& first, const Tensor& second, const Tensor& index,
                          const Tensor& offsets) {
  const int64_t D = width_of(y);
  const auto at = index.data<const int32_t>(), offset = offsets.data<const int32_t>();
  visit_float(y.dtype(), [&]<class T>() {
    const Rows<T> rows(first, second, D);
    T* const out = y.data<T>().data();
    const auto& kernels = cpu::row_kernels<T>();
    parallel_ranges(y.shape(0), grain(D), [&](int64_t begin, int64_t end) {
      std::vector<const T*> summed;
      for (int64_t t = begin; t < end; ++t) {
        summed.clear();
        for (int32_t i = offset[size_t(t)]; i < offset[size_t(t) + 1]; ++i)
          if (at[size_t(i)] != kNone) summed.push_back(rows[at[size_t(i)]]);
        if (summed.size() == 1)
          std::copy_n(summed[0], D, out + t * D);
        else
          kernels.weighted_sum(out + t * D, summed.data(), nullptr, int64_t(summed.size()), D);
      }
    });
  });
}

}  // namespace agon
