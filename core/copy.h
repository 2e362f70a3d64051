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

/// Sets every element.
void fill(const Tensor& t, double value);

/// A 1-D tensor of these values, on the CPU.
template <class T>
Tensor tensor_of(const std::vector<T>& values) {
  Tensor t({int64_t(values.size())}, dtype_of<T>);
  std::copy(values.begin(), values.end(), t.data<T>().begin());
  return t;
}

}  // namespace agon
