#pragma once
#include <algorithm>
#include <vector>

#include "core/tensor.h"

namespace agon {

/// Copies `from` into `to`, converting the dtype and crossing devices as needed; equal sizes. Floats are rounded once,
/// to nearest even; a float becomes an integer by truncation and must fit it.
void copy(const Tensor& to, const Tensor& from);

/// A new tensor with the values of `from`, in `dtype`, on its device.
Tensor converted(const Tensor& from, DType dtype);
Tensor clone(const Tensor& from);

/// `from` itself where it is on `device`, else a copy there.
Tensor on_device(const Tensor& from, Device device);
inline Tensor on_host(const Tensor& from) { return on_device(from, {}); }

/// How often numbers have crossed between host and GPU since the program started. For tests: between the token ids and
/// the log line of a step nothing may.
struct Crossings {
  int64_t to_device, to_host;
};
Crossings crossings();
void count_crossing(bool to_device);

/// Sets every element.
void fill(const Tensor& t, double value);

/// t[i] = first + i * step, i32.
void fill_steps(const Tensor& t, int64_t first, int64_t step);

/// A 1-D tensor of these values, on the CPU.
template <class T>
Tensor tensor_of(const std::vector<T>& values) {
  Tensor t({int64_t(values.size())}, dtype_of<T>);
  std::copy(values.begin(), values.end(), t.data<T>().begin());
  return t;
}

struct Copy {
  /// Any two dtypes.
  static void cpu(const Tensor& to, const Tensor& from);
  /// At least one of them is on a GPU. Between dtypes on one GPU: f32, bf16, f64, i32.
  static void cuda(const Tensor& to, const Tensor& from);
};

struct Fill {
  static void cpu(const Tensor& t, double value);
  static void cuda(const Tensor& t, double value);
};

struct FillSteps {
  static void cpu(const Tensor& t, int64_t first, int64_t step);
  static void cuda(const Tensor& t, int64_t first, int64_t step);
};

}  // namespace agon
