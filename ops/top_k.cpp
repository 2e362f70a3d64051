#include "ops/top_k.h"

#include <vector>

#include "core/parallel.h"
#include "ops/cpu/rows.h"

namespace agon {

namespace {

constexpr int64_t kRows = 128;  // of a task

}  // namespace

void TopK::Forward::cpu(const Tensor& index, const Tensor& scores) {
  visit_accumulator(scores.dtype(), [&]<class A>() {
    const int64_t k = index.shape(1), width = scores.shape(1);
    const A* const in = scores.data<const A>().data();
    int32_t* const out = index.data<int32_t>().data();
    if (k == 0) return;
    parallel_ranges(scores.shape(0), kRows, [=](int64_t begin, int64_t end) {
      std::vector<A> space(size_t(cpu::choice_space(width, k)));
      cpu::choice_kernels<A>().top_k(out + begin * k, in + begin * width, end - begin, width, k, space.data());
    });
  });
}

Tensor top_k(const Tensor& scores, int64_t k) {
  check(scores.shape().rank() == 2 && k >= 0 && k <= scores.shape(1), "top_k: cannot take ", k,
        " of each row of a tensor of shape ", scores.shape());
  Tensor index({scores.shape(0), k}, DType::i32, scores.device());
  run<TopK::Forward>(scores.device(), index, scores);
  return index;
}

}  // namespace agon
