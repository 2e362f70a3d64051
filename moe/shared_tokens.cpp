#include "moe/shared_tokens.h"

#include <algorithm>

#include "core/copy.h"
#include "moe/matrix_part.h"
#include "moe/two_sources.h"
#include "ops/copy_part.h"

namespace agon {

SharedTokens::SharedTokens(const Tensor& x, int64_t chunk_bytes, Communicator& comm, const ExchangeOptions& exchange)
    : comm_(comm), exchange_(exchange), own_(size_t(comm.rank())) {
  const Tensor here = on_device(tensor_of<int32_t>({int32_t(x.shape(0))}), x.device());
  const Tensor all = on_host(comm.all_gather(here));
  for (int32_t n : all.data<const int32_t>()) tokens_.push_back(n);
  // What is gathered, its gradient, what of that comes from other ranks, and one of them rounded or on its way.
  const int64_t row = 4 * comm.size() * x.shape(1) * size_of(x.dtype());
  each_ = std::max<int64_t>(1, chunk_bytes / row);
}

void SharedTokens::each_chunk(const std::function<void(const Chunk&)>& f) const {
  const int64_t most = std::ranges::max(tokens_);
  for (int64_t first = 0; first < most; first += each_) {
    Chunk c{.first = std::min(first, tokens_[own_]), .counts = {}, .all = 0, .before = 0, .mine = 0};
    for (int64_t n : tokens_) {
      if (c.counts.size() == own_) c.before = c.all;
      c.counts.push_back(std::clamp<int64_t>(n - first, 0, each_));
      c.all += c.counts.back();
    }
    c.mine = c.counts[own_];
    f(c);
  }
}

Tensor SharedTokens::gathered(const Chunk& c, const Tensor& x) const {
  const Tensor mine = c.mine == x.shape(0) ? x : some_rows(x, c.first, c.mine);
  if (!exchange_.bf16 || x.dtype() != DType::f32) return comm_.all_gather(mine);
  Tensor all = converted(comm_.all_gather(converted(mine, DType::bf16)), DType::f32);
  copy_part(all, c.before * x.shape(1), mine, 0, mine.size());
  return all;
}

void SharedTokens::numbers_home(const Chunk& c, const Tensor& numbers, const Tensor& whole) const {
  const Tensor blocks = exchange(numbers, c.counts, of_mine(c), comm_);
  for (int64_t r = 0; r < comm_.size(); ++r)
    run<MatrixPart::Put>(whole.device(), whole, some_rows(blocks, r * c.mine, c.mine), c.first, r * numbers.shape(1));
}

Tensor SharedTokens::numbers_out(const Chunk& c, const Tensor& whole) const {
  const int64_t e = whole.shape(1) / comm_.size();
  const Device at = whole.device();
  const Tensor blocks({comm_.size() * c.mine, e}, whole.dtype(), at), block({c.mine, e}, whole.dtype(), at);
  for (int64_t r = 0; r < comm_.size(); ++r) {
    run<MatrixPart::Take>(at, block, whole, c.first, r * e);
    run<MatrixPart::Put>(at, blocks, block, r * c.mine, 0);
  }
  return exchange(blocks, of_mine(c), c.counts, comm_);
}

void SharedTokens::sum_home(const Chunk& c, const Tensor& parts, const Tensor& whole) const {
  const int64_t D = parts.shape(1), after = c.before + c.mine;
  const Device at = parts.device();
  std::vector<int64_t> out = c.counts, in = of_mine(c);
  Tensor leaving = parts;
  if (!exchange_.own_too) {
    out[own_] = in[own_] = 0;
    leaving = Tensor({c.all - c.mine, D}, parts.dtype(), at);
    copy_part(leaving, 0, parts, 0, c.before * D);
    copy_part(leaving, c.before * D, parts, after * D, (c.all - after) * D);
  }
  const Tensor came = exchange(leaving, out, in, comm_, exchange_.bf16);
  std::vector<int32_t> index, offsets{0};
  for (int64_t i = 0; i < c.mine; ++i) {
    int64_t row = i;
    for (int64_t n : in) {
      index.push_back(n ? int32_t(row) : ~int32_t(c.before + i));
      row += n;
    }
    offsets.push_back(int32_t(index.size()));
  }
  const Tensor sum({c.mine, D}, parts.dtype(), at);
  run<TwoSources::Sum>(at, sum, came, parts, on_device(tensor_of(index), at), on_device(tensor_of(offsets), at));
  run<MatrixPart::Put>(at, whole, sum, c.first, 0);
}

std::vector<int64_t> SharedTokens::of_mine(const Chunk& c) const {
  return std::vector<int64_t>(tokens_.size(), c.mine);
}

}  // namespace agon
