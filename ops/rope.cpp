#include "ops/rope.h"

#include <cmath>
#include <vector>

#include "autograd/tape.h"
#include "ops/cpu/map.h"
#include "ops/cpu/rows.h"

namespace agon {

namespace {

/// The cosines and sines of the angles of each token. Sequences of a batch share positions, so where that saves work
/// there is one row for each position below the largest, else one for each token; the values are the same.
template <class A>
class Angles {
 public:
  Angles(std::span<const int32_t> position, int64_t half, double theta) : position_(position), half_(half) {
    const auto [low, high] = std::minmax_element(position.begin(), position.end());
    by_position_ = !position.empty() && *low >= 0 && *high < int64_t(position.size());
    const int64_t rows = by_position_ ? *high + 1 : int64_t(position.size());
    std::vector<double> frequency(static_cast<size_t>(half));
    for (int64_t i = 0; i < half; ++i) frequency[size_t(i)] = std::pow(theta, -double(i) / double(half));
    values_.resize(size_t(rows * half * 2));
    cpu::each_row(rows, half * 32, [&](int64_t n) {
      A* const cosine = values_.data() + n * half * 2;
      const double at = by_position_ ? double(n) : double(position[size_t(n)]);
      for (int64_t i = 0; i < half; ++i) {
        cosine[i] = A(std::cos(at * frequency[size_t(i)]));
        cosine[half + i] = A(std::sin(at * frequency[size_t(i)]));
      }
    });
  }
  /// d/2 cosines, then d/2 sines.
  const A* of(int64_t token) const {
    return values_.data() + (by_position_ ? int64_t(position_[size_t(token)]) : token) * half_ * 2;
  }

 private:
  std::span<const int32_t> position_;
  int64_t half_;
  bool by_position_ = false;
  std::vector<A> values_;
};

}  // namespace

void Rope::Forward::cpu(const Tensor& y, const Tensor& x, const Tensor& position, double theta, int direction) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t heads = x.shape(1), half = x.shape(2) / 2;
    const Angles<A> angles(position.data<const int32_t>(), half, theta);
    const A sign = A(direction);
    const T* const in = x.data<const T>().data();
    T* const out = y.data<T>().data();
    const auto& rows = cpu::row_kernels<T>();
    cpu::each_row(x.shape(0), heads * half * 2, [=, &angles, &rows](int64_t t) {
      const A *const cosine = angles.of(t), *const sine = cosine + half;
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t at = (t * heads + h) * half * 2;
        rows.rotate(out + at, out + at + half, in + at, in + at + half, cosine, sine, sign, half);
      }
    });
  });
}

Tensor rope(const Tensor& x, const Tensor& position, double theta) {
  check(x.shape().rank() == 3 && x.shape(2) % 2 == 0, "rope: expected [T, H, d] with an even d, got ", x.shape());
  check(position.dtype() == DType::i32 && position.shape() == Shape{x.shape(0)}, "rope: expected positions i32 ",
        Shape{x.shape(0)}, ", got ", position.dtype(), ' ', position.shape());
  Tensor y(x.shape(), x.dtype(), x.device());
  run<Rope::Forward>(x.device(), y, x, position, theta, 1);
  return record("rope", {&x}, y, [x = x.without_data(), position, theta](Gradients& g, const Tensor& dy) {
    Tensor dx(x.shape(), x.dtype(), x.device());
    run<Rope::Forward>(x.device(), dx, dy, position, theta, -1);
    g.add(x, dx);
  });
}

}  // namespace agon
