#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>

#include "core/arena.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/shape.h"

namespace agon {

/// A contiguous, row-major block of numbers on a device. Copying a Tensor shares the block. An empty Tensor (made by
/// the default constructor) stands for "none".
class Tensor {
 public:
  Tensor() = default;
  /// Contents are undefined. Memory comes from the current arena (arena.h).
  Tensor(Shape shape, DType dtype, Device device = {});

  const Shape& shape() const { return shape_; }
  int64_t shape(int i) const { return shape_[i]; }
  int64_t size() const { return block_ ? shape_.size() : 0; }
  int64_t bytes() const { return size() * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  /// What the tape knows the tensor by; reshape keeps it, so a reshape costs the tape nothing. 0 for an empty Tensor.
  uint64_t id() const { return id_; }
  explicit operator bool() const { return bool(block_); }
  bool unique() const { return block_.use_count() == 1; }  ///< nobody else would see a write

  /// The address on the tensor's device.
  const void* address() const { return block_.get(); }
  void* address() { return block_.get(); }

  /// The elements, for a tensor on the CPU. T must be the C++ type of the dtype, const or not: a Tensor is a handle,
  /// and whoever made the block may write to it.
  template <class T>
  std::span<T> data() const {
    check_access(dtype_of<std::remove_const_t<T>>);
    return {reinterpret_cast<T*>(block_.get()), size_t(shape_.size())};
  }

  /// The same block under another shape of equal size.
  Tensor reshape(Shape shape) const;
  /// Elements [first, first + count) of the same block, as a tensor [count] the tape has never seen.
  Tensor part(int64_t first, int64_t count) const;
  /// The same block as a tensor the tape has never seen: no gradient flows through it.
  Tensor detach() const;
  /// The shape, dtype, device and id alone: what an op captures to give this tensor a gradient without keeping its
  /// memory.
  Tensor without_data() const;
  const Tensor& zero() const;
  /// The value of a tensor with one element, on any device, as a double. Waits for the device.
  double item() const;

 private:
  void check_access(DType wanted) const;

  std::shared_ptr<std::byte> block_;
  Shape shape_;
  DType dtype_ = DType::f32;
  Device device_;
  uint64_t id_ = 0;
};

}  // namespace agon
