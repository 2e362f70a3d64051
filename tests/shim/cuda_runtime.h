#pragma once
// A GPU on the CPU, for tests: as much of the CUDA runtime and of its C++ dialect as our .cu files use, so that g++
// compiles them (preset shim) and kernels run as they are. A thread of a block is a fiber that gives way at barriers
// and shuffles; device memory is memory of the host. What it shows: indexing, barriers, shuffles, tiles, results. What
// it cannot: speed, memory ordering, what nvcc makes of the code. Threads and blocks run one after the other in an
// order that shim::set_order changes: a kernel whose result depends on it has a race.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static  // one block at a time
#define __constant__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
constexpr float2 make_float2(float x, float y) { return {x, y}; }
constexpr float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
constexpr uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

extern dim3 threadIdx, blockIdx, blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace shim {

/// Runs kernel() for every thread of every block. Throws agon::Error when threads wait for each other for ever, and
/// what the kernel throws. One grid at a time in the whole process.
void run(dim3 grid, dim3 block, size_t shared, const std::function<void()>& kernel);
void* dynamic_shared();

/// In which order threads and blocks run: 0 as numbered, 1 the other way round, else shuffled by the number.
void set_order(uint64_t order);

/// Whether events recorded from now on are never reached, as on a device whose work does not end.
void hold_events(bool hold);

void block_barrier();
/// Waits for the lanes of `mask` in this warp; publishes `bytes` of this lane, and returns where lane i's are: at i
/// * 64.
const std::byte* exchange(unsigned mask, const void* mine, size_t bytes);
int lane();

/// What lane i published.
template <class T>
const T& at_lane(const std::byte* all, int i) {
  return *reinterpret_cast<const T*>(all + 64 * i);
}

}  // namespace shim

inline void __syncthreads() { shim::block_barrier(); }
inline void __syncwarp(unsigned mask = ~0u) { shim::exchange(mask, nullptr, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}

inline int __syncthreads_count(int predicate) {
  static int count;
  __syncthreads();
  count = 0;
  __syncthreads();
  count += predicate != 0;
  __syncthreads();
  return count;
}
inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) > 0; }
inline int __syncthreads_and(int predicate) { return __syncthreads_count(predicate == 0) == 0; }

template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32) {
  const std::byte* const all = shim::exchange(mask, &v, sizeof v);
  const int lane = shim::lane();
  return shim::at_lane<T>(all, lane / width * width + (source % width + width) % width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
  const std::byte* const all = shim::exchange(mask, &v, sizeof v);
  const int lane = shim::lane(), from = lane ^ bits;
  return from / width > lane / width ? v : shim::at_lane<T>(all, from);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  const std::byte* const all = shim::exchange(mask, &v, sizeof v);
  const int lane = shim::lane(), from = lane + int(delta);
  return from / width != lane / width ? v : shim::at_lane<T>(all, from);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  const std::byte* const all = shim::exchange(mask, &v, sizeof v);
  const int lane = shim::lane(), from = lane - int(delta);
  return from < lane / width * width ? v : shim::at_lane<T>(all, from);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const unsigned v = predicate != 0;
  const std::byte* const all = shim::exchange(mask, &v, sizeof v);
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1u) bits |= shim::at_lane<unsigned>(all, i) << i;
  return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> v) {
  const T old = *at;
  *at = T(old + v);
  return old;
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> v) {
  const T old = *at;
  if (v > old) *at = v;
  return old;
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> v) {
  const T old = *at;
  if (v < old) *at = v;
  return old;
}
template <class T>
T atomicOr(T* at, std::type_identity_t<T> v) {
  const T old = *at;
  *at = old | v;
  return old;
}
template <class T>
T atomicExch(T* at, std::type_identity_t<T> v) {
  const T old = *at;
  *at = v;
  return old;
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  const T old = *at;
  if (old == expected) *at = v;
  return old;
}

template <class T>
T __ldg(const T* at) {
  return *at;
}
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(unsigned(v)); }
inline int __clzll(long long v) { return v == 0 ? 64 : __builtin_clzll((unsigned long long)v); }
inline unsigned __float_as_uint(float v) {
  unsigned u;
  std::memcpy(&u, &v, 4);
  return u;
}
inline float __uint_as_float(unsigned u) {
  float v;
  std::memcpy(&v, &u, 4);
  return v;
}
inline int __float_as_int(float v) { return int(__float_as_uint(v)); }
inline float __int_as_float(int u) { return __uint_as_float(unsigned(u)); }
inline float rsqrtf(float v) { return 1 / std::sqrt(v); }
inline float __expf(float v) { return std::exp(v); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }

// The runtime's functions.
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNotReady = 600
};
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum cudaDeviceAttr { cudaDevAttrClockRate, cudaDevAttrMultiProcessorCount };
inline constexpr unsigned cudaStreamNonBlocking = 1;
struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount, l2CacheSize;
  size_t totalGlobalMem;
};
using cudaStream_t = struct CUstream*;
using cudaEvent_t = struct CUevent*;

cudaError_t cudaMalloc(void** p, size_t bytes);
cudaError_t cudaFree(void* p);
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device);
cudaError_t cudaEventCreate(cudaEvent_t* e);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s = nullptr);
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaEventQuery(cudaEvent_t e);
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t = nullptr) {
  std::memmove(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t = nullptr) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
  *s = nullptr;
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "an error of the test's GPU"; }
inline const char* cudaGetErrorName(cudaError_t) { return "shim"; }
inline cudaError_t cudaGetDevice(int* d) { return *d = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* n) { return *n = 1, cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int* v) { return *v = 13000, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int* v) { return *v = 13000, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* v, cudaDeviceAttr a, int) {
  return *v = a == cudaDevAttrMultiProcessorCount ? 4 : 1'000'000, cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int bytes) {
  return bytes <= 227 * 1024 ? cudaSuccess : cudaErrorMemoryAllocation;
}
