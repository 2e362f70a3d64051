#include "ops/jitter.h"

#include <algorithm>

#include "autograd/tape.h"
#include "core/parallel.h"

namespace agon {

void Jitter::Forward::cpu(const Tensor& y, const Tensor& x, double amount, RandomKey key, int64_t first_row) {
  const int64_t D = x.shape(1), blocks = (D + 3) / 4;
  visit_float(x.dtype(), [&]<class T>() {
    using A = Accumulator<T>;
    const T* const in = x.data<const T>().data();
    T* const out = y.data<T>().data();
    parallel_ranges(x.shape(0), 64, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        for (int64_t b = 0; b < blocks; ++b) {
          const auto words = philox(key, uint64_t((first_row + t) * blocks + b));
          for (int64_t d = 4 * b; d < std::min(D, 4 * b + 4); ++d)
            out[t * D + d] = T(A(in[t * D + d]) * factor<A>(amount, words[size_t(d % 4)]));
        }
    });
  });
}

Tensor jitter(const Tensor& x, double amount, RandomKey key, int64_t first_row) {
  check(x.shape().rank() == 2 && amount >= 0 && amount < 1, "jitter: expected [T, D] and an amount in [0, 1), got ",
        x.shape(), " and ", amount);
  const auto apply = [=](const Tensor& from) {
    Tensor to(from.shape(), from.dtype(), from.device());
    run<Jitter::Forward>(from.device(), to, from, amount, key, first_row);
    return to;
  };
  return record("jitter", {&x}, apply(x),
                [x = x.without_data(), apply](Gradients& g, const Tensor& dy) { g.add(x, apply(dy)); });
}

}  // namespace agon
