#include "ops/cuda/mma.cuh"

#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// c [16, 8] = a [16, 16] b [16, 8] (b_by_columns: bᵀ [8, 16] is given), by one warp.
__global__ void product(float* c, const bf16* a, const bf16* b, bool b_by_columns) {
  __shared__ __align__(128) uint16_t left[16 * 16], right[16 * 16];
  const int lane = int(threadIdx.x);
  for (int i = lane; i < 32; i += 32) cuda::copy_async<16>(left + 8 * i, a + 8 * i);
  for (int i = lane; i < 32; i += 32) cuda::copy_async<16>(right + 8 * i, b + 8 * (i % 16), i < 16 ? 16 : 0);
  cuda::commit_copies();
  cuda::wait_for_copies<0>();
  __syncwarp();
  cuda::FragmentA fa;
  cuda::load_matrices(fa.r, left + (lane % 8 + lane / 8 % 2 * 8) * 16 + lane / 16 * 8);
  uint32_t r[4];
  cuda::FragmentB fb;
  if (b_by_columns) {  // matrices 0 and 1: k below 8 and above, of 8 columns
    cuda::load_matrices(r, right + lane % 8 * 16 + lane / 8 % 2 * 8);
  } else {
    cuda::load_matrices_transposed(r, right + (lane % 8 + lane / 8 % 2 * 8) * 8);
  }
  fb.r[0] = r[0];
  fb.r[1] = r[1];
  cuda::FragmentC fc{};
  cuda::mma(fc, fa, fb);
  for (int i = 0; i < 4; ++i) c[cuda::row_of_c(lane, i) * 8 + cuda::column_of_c(lane, i)] = fc.r[i];
}

}  // namespace

GPU_CASE("mma: fragments loaded by rows and transposed give the product") {
  const Tensor a = random({16, 16}, 1, 1, DType::bf16), b = random({16, 8}, 2, 1, DType::bf16),
               bt({8, 16}, DType::bf16);
  for (size_t k = 0; k < 16; ++k)
    for (size_t n = 0; n < 8; ++n) bt.data<bf16>()[n * 16 + k] = b.data<bf16>()[k * 8 + n];
  for (const bool by_columns : {false, true}) {
    const Tensor c({16, 8}, DType::f32, device_of_case());
    cuda::launch({"mma", a, b}, product, 1, 32, 0, cuda::pointer<float>(c), cuda::pointer<const bf16>(there(a)),
                 cuda::pointer<const bf16>(there(by_columns ? bt : b)), by_columns);
    Tensor expected({16, 8}, DType::f64);
    for (size_t i = 0; i < 128; ++i) {
      double sum = 0;
      for (size_t k = 0; k < 16; ++k)
        sum += double(float(a.data<bf16>()[i / 8 * 16 + k])) * double(float(b.data<bf16>()[k * 8 + i % 8]));
      expected.data<double>()[i] = sum;
    }
    CHECK(relative_error(c, expected) < 1e-6);
  }
}
