#include "ops/copy_part.h"

#include "core/cuda/launch.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

template <class To, class From>
__global__ void copy_all(To* to, const From* from, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) to[i] = convert<To>(from[i]);
}

/// What is logged is f64, even where a model is not.
template <class F>
void visit_stored(DType t, F&& f) {
  if (t == DType::f64) return f.template operator()<double>();
  cuda::visit(t, f);
}

}  // namespace

void CopyPart::cuda(const Tensor& to, int64_t at, const Tensor& from, int64_t first, int64_t count) {
  visit_stored(to.dtype(), [&]<class To>() {
    visit_stored(from.dtype(), [&]<class From>() {
      cuda::launch({"copy_part", to, from}, copy_all<To, From>, cuda::blocks(count, kThreads), kThreads, 0,
                   cuda::pointer<To>(to) + at, cuda::pointer<const From>(from) + first, count);
    });
  });
}

}  // namespace agon
