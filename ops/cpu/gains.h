#pragma once
#include <vector>

#include "core/tensor.h"

namespace agon::cpu {

/// The numbers of a parameter in the accumulator's type, made where they are stored in another. None for an empty
/// tensor.
template <class A>
class Gains {
 public:
  explicit Gains(const Tensor& t) {
    if (!t) return;
    if (t.dtype() == dtype_of<A>) {
      data_ = t.data<const A>().data();
      return;
    }
    const auto stored = t.data<const bf16>();
    made_.assign(stored.begin(), stored.end());
    data_ = made_.data();
  }
  Gains(const Gains&) = delete;
  Gains& operator=(const Gains&) = delete;

  const A* data() const { return data_; }

 private:
  std::vector<A> made_;
  const A* data_ = nullptr;
};

}  // namespace agon::cpu
