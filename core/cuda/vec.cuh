#pragma once
#include <cuda_runtime.h>

#include <cstdint>

// Loads and stores of several neighbours at once, for kernels.

namespace agon::cuda {

/// N elements side by side, read and written as one: 16 bytes at most, aligned to their size.
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  static_assert(sizeof(T) * N <= 16);
  T at[N];

  __device__ T& operator[](int i) { return at[i]; }
  __device__ const T& operator[](int i) const { return at[i]; }
};

/// How many T fill 16 bytes.
template <class T>
inline constexpr int kVec = 16 / int(sizeof(T));

template <int N, class T>
__device__ Vec<T, N> load(const T* from) {
  return *reinterpret_cast<const Vec<T, N>*>(from);
}
template <int N, class T>
__device__ void store(T* to, const Vec<T, N>& v) {
  *reinterpret_cast<Vec<T, N>*>(to) = v;
}

/// Whether rows of `width` elements, one after the other from the start of a block, can be read N at a time.
template <class T>
constexpr bool fits_vec(int64_t width) {
  return width % kVec<T> == 0;
}

/// f with the number of elements that rows of `width` can be read by at once.
template <class T, class F>
void by_width(int64_t width, F&& f) {
  if (fits_vec<T>(width)) return f.template operator()<kVec<T>>();
  f.template operator()<1>();
}

}  // namespace agon::cuda
