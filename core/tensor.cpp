#include "core/tensor.h"

#include <atomic>

#include "core/copy.h"

namespace agon {

namespace {
std::atomic<uint64_t> last_id = 0;
}

Tensor::Tensor(Shape shape, DType dtype, Device device)
    : block_(allocate(device, size_t(shape.size() * size_of(dtype)))),
      shape_(shape),
      dtype_(dtype),
      device_(device),
      id_(++last_id) {}

Tensor Tensor::reshape(Shape shape) const {
  check(block_ && shape.size() == size(), "reshape ", shape_, " -> ", shape);
  Tensor t = *this;
  t.shape_ = shape;
  return t;
}

Tensor Tensor::part(int64_t first, int64_t count) const {
  check(block_ && first >= 0 && count >= 0 && first + count <= size(), "elements ", first, " to ", first + count,
        " of a tensor of shape ", shape_);
  Tensor t = detach();
  t.block_ = {block_, block_.get() + first * size_of(dtype_)};
  t.shape_ = {count};
  return t;
}

Tensor Tensor::detach() const {
  Tensor t = *this;
  t.id_ = ++last_id;
  return t;
}

Tensor Tensor::without_data() const {
  Tensor t = *this;
  t.block_ = nullptr;
  return t;
}

const Tensor& Tensor::zero() const {
  fill(*this, 0);
  return *this;
}

double Tensor::item() const {
  check(size() == 1, "item() needs a tensor of one element, got shape ", shape_);
  Tensor on_host({1}, DType::f64);
  copy(on_host, reshape({1}));
  return on_host.data<double>()[0];
}

void Tensor::check_access(DType wanted) const {
  check(block_ != nullptr, "access to an empty tensor");
  check(device_.kind == Device::cpu, "access from the host to a tensor on ", device_);
  check(dtype_ == wanted, "access as ", wanted, " to a tensor of ", dtype_, " with shape ", shape_);
}

}  // namespace agon
