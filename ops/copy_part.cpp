#include "ops/copy_part.h"

namespace agon {

void CopyPart::cpu(const Tensor& to, int64_t at, const Tensor& from, int64_t first, int64_t count) {
  visit_float(to.dtype(), [&]<class To>() {
    visit_float(from.dtype(), [&]<class From>() {
      To* const y = to.data<To>().data() + at;
      const From* const x = from.data<const From>().data() + first;
      for (int64_t i = 0; i < count; ++i) y[i] = convert<To>(x[i]);
    });
  });
}

void copy_part(const Tensor& to, int64_t at, const Tensor& from, int64_t first, int64_t count) {
  check(to.device() == from.device(), "copy_part from ", from.device(), " to ", to.device());
  check(at >= 0 && count >= 0 && at + count <= to.size(), "copy_part: elements ", at, " to ", at + count, " of ",
        to.shape());
  check(first >= 0 && first + count <= from.size(), "copy_part: elements ", first, " to ", first + count, " of ",
        from.shape());
  if (count > 0) run<CopyPart>(to.device(), to, at, from, first, count);
}

}  // namespace agon
