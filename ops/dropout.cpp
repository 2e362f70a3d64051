#include "ops/dropout.h"

#include "autograd/tape.h"
#include "ops/cpu/map.h"

namespace agon {

void Dropout::Forward::cpu(const Tensor& y, const Tensor& x, double probability, RandomKey key, int64_t first_row) {
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const int64_t width = x.shape(-1);
    const T* const in = x.data<const T>().data();
    T* const out = y.data<T>().data();
    const A factor = A(1 / (1 - probability));
    cpu::each_row(x.shape().rows(), width, [=](int64_t n) {
      const RandomKey of_row = key.with(uint64_t(first_row + n));
      for (int64_t i = 0; i < width; i += 4) {
        const auto words = philox(of_row, uint64_t(i / 4));
        for (int64_t j = i; j < std::min(i + 4, width); ++j) {
          const bool kept = double(uniform(words[size_t(j - i)])) >= probability;
          out[n * width + j] = T(kept ? A(in[n * width + j]) * factor : A(0));
        }
      }
    });
  });
}

Tensor dropout(const Tensor& x, double probability, RandomKey key, int64_t first_row) {
  check(probability >= 0 && probability < 1, "dropout: expected a probability in [0, 1), got ", probability);
  check(x.shape().rank() >= 1, "dropout: expected rows, got ", x.shape());
  if (probability == 0) return x;
  Tensor y(x.shape(), x.dtype(), x.device());
  run<Dropout::Forward>(x.device(), y, x, probability, key, first_row);
  return record("dropout", {&x}, y,
                [x = x.without_data(), probability, key, first_row](Gradients& g, const Tensor& dy) {
                  Tensor dx(x.shape(), x.dtype(), x.device());
                  run<Dropout::Forward>(x.device(), dx, dy, probability, key, first_row);
                  g.add(x, dx);
                });
}

}  // namespace agon
