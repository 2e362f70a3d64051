#include "distributed/sum.h"

#include <algorithm>

namespace agon {

namespace {

template <class T>
struct SumOf {
  using type = Accumulator<T>;
};
template <>
struct SumOf<int32_t> {
  using type = int64_t;
};

template <class T>
void sum(int64_t n, std::span<const void* const> from, std::span<void* const> to) {
  constexpr int64_t kPiece = 256;
  typename SumOf<T>::type sums[kPiece];
  T values[kPiece];
  for (int64_t at = 0; at < n; at += kPiece) {
    const int64_t m = std::min(kPiece, n - at);
    for (size_t r = 0; r < from.size(); ++r) {
      const T* x = static_cast<const T*>(from[r]) + at;
      if (r == 0)
        for (int64_t i = 0; i < m; ++i) sums[i] = typename SumOf<T>::type(x[i]);
      else
        for (int64_t i = 0; i < m; ++i) sums[i] += x[i];
    }
    for (int64_t i = 0; i < m; ++i) values[i] = T(sums[i]);
    for (void* target : to) std::copy_n(values, m, static_cast<T*>(target) + at);
  }
}

}  // namespace

void sum_in_order(DType dtype, int64_t n, std::span<const void* const> from, std::span<void* const> to) {
  if (dtype == DType::i32)
    sum<int32_t>(n, from, to);
  else
    visit_float(dtype, [&]<class T>() { sum<T>(n, from, to); });
}

}  // namespace agon
