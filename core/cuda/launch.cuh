#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <source_location>
#include <type_traits>

#include "core/tensor.h"

// Launching kernels, for .cu files.

namespace agon::cuda {

/// Throws Error made of what the runtime says and where, unless `code` is success.
void check_call(cudaError_t code, std::source_location where = std::source_location::current());

/// What an error message says of an op: its name and the shapes of its tensors.
struct Label {
  const char* op;
  Shape shapes[4] = {};
  int count = 0;

  Label(const char* name) : op(name) {}
  template <class... Tensors>
  Label(const char* name, const Tensors&... tensors)
      : op(name), shapes{tensors.shape()...}, count(int(sizeof...(tensors))) {}
};
/// Throws Error naming the op and its shapes when its launch was refused, or when a kernel before it is known by now to
/// have failed. What goes wrong later, inside a
/// kernel, is thrown by the next call that waits, which names the op launched last on this thread.
void check_launch(const Label& label, dim3 grid, dim3 block, size_t shared);

/// Throws Error unless `device` is the one this thread uses.
void check_current(Device device);

/// The stream this thread's work for a GPU goes to, in order.
cudaStream_t stream();

/// Lets a kernel use more than 48 KiB of dynamic shared memory.
void allow_shared(const void* kernel, size_t bytes);

/// kernel<<<grid, block, shared>>>(args...) on this thread's stream. An empty grid launches nothing.
template <class... Parameters, class... Args>
void launch(const Label& label, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, Args... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared > 48 * 1024) allow_shared(reinterpret_cast<const void*>(kernel), shared);
#ifdef __CUDACC__
  kernel<<<grid, block, shared, stream()>>>(static_cast<Parameters>(args)...);
#else
  shim::run(grid, block, shared, [&] { kernel(static_cast<Parameters>(args)...); });
#endif
  check_launch(label, grid, block, shared);
}

/// Blocks of `size` that hold n.
inline unsigned blocks(int64_t n, int64_t size) { return unsigned((n + size - 1) / size); }

/// The dynamic shared memory of a block.
template <class T>
__device__ T* dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ __align__(128) unsigned char agon_dynamic_shared[];
  return reinterpret_cast<T*>(agon_dynamic_shared);
#else
  return reinterpret_cast<T*>(shim::dynamic_shared());
#endif
}

/// The elements of a tensor on a GPU, for a kernel; null for an empty Tensor.
template <class T>
T* pointer(const Tensor& t) {
  if (!t) return nullptr;
  check(t.device().kind == Device::cuda && t.dtype() == dtype_of<std::remove_const_t<T>>, "a kernel for ",
        dtype_of<std::remove_const_t<T>>, " on a GPU got a tensor of ", t.dtype(), " on ", t.device(), ", shape ",
        t.shape());
  return static_cast<T*>(const_cast<void*>(t.address()));
}

/// As visit_float, for kernels: f32 and bf16. f64 models run on the CPU.
template <class F>
decltype(auto) visit(DType t, F&& f) {
  if (t == DType::bf16) return f.template operator()<bf16>();
  check(t == DType::f32, "a GPU computes in f32 and bf16, got a tensor of ", t, "; f64 models run on device = \"cpu\"");
  return f.template operator()<float>();
}

}  // namespace agon::cuda
