#include <cstring>

#include "core/copy.h"
#include "core/cuda/launch.cuh"
#include "ops/adamw.h"

namespace agon {

namespace {

constexpr int kThreads = 256;
constexpr int64_t kPiece = 2048;  // elements of a block

/// Which row block `b` works on: the last whose first block is not behind it. Rows without elements have no block.
__device__ int row_of(const AdamW::Row* rows, int count, int64_t b) {
  int low = 0, high = count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (rows[middle].first_block <= b ? low : high) = middle;
  }
  return low;
}

/// A number is finite when its difference from itself is 0.
__device__ bool finite(const double* x) { return !x || *x - *x == 0; }

__global__ void update_all(const AdamW::Row* rows, int count, AdamWNumbers<float> c, double clip, float decay,
                           const double* square_sum, const double* loss) {
  const double norm = sqrt(*square_sum);
  if (!finite(&norm) || !finite(loss)) return;
  const float scale = float(clipping_scale(norm, clip));
  const int64_t b = int64_t(blockIdx.x);
  const AdamW::Row row = rows[row_of(rows, count, b)];
  const float decay_of_this = row.decays ? decay : 0.0f;
  const int64_t begin = (b - row.first_block) * kPiece;
  for (int64_t i = begin + threadIdx.x; i < begin + kPiece && i < row.size; i += kThreads) {
    const float g = row.gradient[i] * scale;
    const float m = c.beta1 * row.first[i] + c.rest1 * g, v = c.beta2 * row.second[i] + c.rest2 * g * g;
    const float old = row.master[i];
    const float w = old - c.rate * (m * c.correction1 / (sqrtf(v * c.correction2) + c.epsilon) + decay_of_this * old);
    row.first[i] = m;
    row.second[i] = v;
    row.master[i] = w;
    if (row.rounded) row.rounded[i] = bf16(w);
  }
}

}  // namespace

void AdamW::Update::cuda(Table& table, std::span<Parameter* const> parameters, std::span<const Moments> moments,
                         const AdamWOptions& options, const Found& found) {
  std::vector<Row> rows;
  int64_t blocks = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = *parameters[i];
    if (p.master.size() == 0) continue;
    const bool rounds = p.value.dtype() == DType::bf16;
    rows.push_back({.master = cuda::pointer<float>(p.master),
                    .first = cuda::pointer<float>(moments[i].first),
                    .second = cuda::pointer<float>(moments[i].second),
                    .gradient = cuda::pointer<const float>(p.grad),
                    .rounded = rounds ? cuda::pointer<bf16>(p.value) : nullptr,
                    .size = p.master.size(),
                    .first_block = blocks,
                    .decays = p.decays});
    blocks += cuda::blocks(p.master.size(), kPiece);
  }
  if (rows.empty()) return;
  if (rows != table.rows) {
    const Arena::Outside outside;
    const Tensor bytes({int64_t(rows.size() * sizeof(Row))}, DType::u8);
    std::memcpy(bytes.data<uint8_t>().data(), rows.data(), rows.size() * sizeof(Row));
    table.there = on_device(bytes, found.square_sum.device());
    table.rows = std::move(rows);
  }
  cuda::launch({"adamw", table.there}, update_all, unsigned(blocks), kThreads, 0,
               reinterpret_cast<const Row*>(cuda::pointer<const uint8_t>(table.there)), int(table.rows.size()),
               AdamWNumbers<float>(options), options.clip, float(options.decay),
               cuda::pointer<const double>(found.square_sum), cuda::pointer<const double>(found.loss));
}

}  // namespace agon
