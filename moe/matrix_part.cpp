#include "moe/matrix_part.h"

#include <algorithm>

namespace agon {

namespace {

/// Calls f(a row's elements in the part, in the whole) for every row of the part.
template <class P, class W, class F>
void each_row(const Tensor& part, const Tensor& whole, int64_t row, int64_t column, F&& f) {
  const int64_t n = part.shape(0), m = part.shape(1), width = whole.shape(1);
  for (int64_t i = 0; i < n; ++i)
    f(part.data<P>().data() + i * m, whole.data<W>().data() + (row + i) * width + column, m);
}

}  // namespace

void MatrixPart::Take::cpu(const Tensor& part, const Tensor& whole, int64_t row, int64_t column) {
  visit_float(part.dtype(), [&]<class P>() {
    visit_float(whole.dtype(), [&]<class W>() {
      each_row<P, const W>(part, whole, row, column, [](P* to, const W* from, int64_t m) {
        std::transform(from, from + m, to, [](W v) { return convert<P>(v); });
      });
    });
  });
}

void MatrixPart::Put::cpu(const Tensor& whole, const Tensor& part, int64_t row, int64_t column) {
  visit_float(part.dtype(), [&]<class P>() {
    visit_float(whole.dtype(), [&]<class W>() {
      each_row<const P, W>(part, whole, row, column, [](const P* from, W* to, int64_t m) {
        std::transform(from, from + m, to, [](P v) { return convert<W>(v); });
      });
    });
  });
}

}  // namespace agon
