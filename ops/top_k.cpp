#include "ops/top_k.h"

#include <cmath>

#include "ops/cpu/map.h"

namespace agon {

void TopK::Forward::cpu(const Tensor& index, const Tensor& scores) {
  visit_accumulator(scores.dtype(), [&]<class A>() {
    const int64_t k = index.shape(1), width = scores.shape(1);
    const A* const in = scores.data<const A>().data();
    int32_t* const out = index.data<int32_t>().data();
    cpu::each_row(scores.shape(0), width, [=](int64_t n) {
      const A* const row = in + n * width;
      int32_t* const best = out + n * k;
      const auto beats = [=](int64_t a, int32_t b) {
        return row[a] > row[b] || (std::isnan(row[b]) && !std::isnan(row[a]));
      };
      int64_t kept = 0;
      for (int64_t e = 0; e < width; ++e) {
        if (kept == k && !(k > 0 && beats(e, best[k - 1]))) continue;
        int64_t at = kept < k ? kept++ : k - 1;
        for (; at > 0 && beats(e, best[at - 1]); --at) best[at] = best[at - 1];
        best[at] = int32_t(e);
      }
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
