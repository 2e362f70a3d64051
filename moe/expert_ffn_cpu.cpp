#include <algorithm>
#include <cstring>
#include <vector>

#include "autograd/tape.h"
#include "core/parallel.h"
#include "moe/dispatch.h"
#include "moe/expert_ffn.h"
#include "ops/activation.h"
#include "ops/cpu/bias.h"
#include "ops/cpu/gemm_blocks.h"
#include "ops/cpu/matrix.h"
#include "ops/cpu/rows.h"
#include "ops/grouped_linear.h"
#include "ops/parameter_gradient.h"

// The whole of an expert for a block of its rows at a time: gathered while they are packed, activated while they are in
// the cache. Blocks are one flat list over all experts, and their cut changes no bit.

namespace agon {

namespace {

using cpu::Scratch, cpu::scratch;

/// Rows [begin, end) of expert e.
struct Block {
  int64_t expert, begin, end;
  int64_t rows() const { return end - begin; }
};

/// The rows of all experts. High blocks pack weights less often, low ones leave enough for every thread; a block's rows
/// of D numbers should stay in the second-level cache.
std::vector<Block> blocks_of(const Plan& plan, int64_t width) {
  const auto offset = plan.offsets.data<const int32_t>();
  const int64_t fair = std::clamp<int64_t>(offset.back() / (12 * threads()), 64, 256);
  const int64_t most = std::clamp<int64_t>((int64_t(192) << 10) / std::max<int64_t>(width, 1), 64, fair);
  std::vector<Block> blocks;
  for (size_t e = 0; e + 1 < offset.size(); ++e) {
    const cpu::Pieces pieces = cpu::Pieces::of(offset[e + 1] - offset[e], most);
    for (int64_t i = 0; i < pieces.count; ++i)
      blocks.push_back({int64_t(e), offset[e] + pieces.begin(i), offset[e] + pieces.begin(i + 1)});
  }
  return blocks;
}

/// One expert's activation on rows of T: before [gate | up] or [before] -> hidden.
template <class T>
void activate_row(Activation activation, T* hidden, const T* before, const T* up, int64_t n) {
  using A = Accumulator<T>;
  switch (activation) {
    case Activation::swiglu:
      return cpu::row_kernels<T>().swiglu(hidden, before, up, n);
    case Activation::gelu:
      for (int64_t i = 0; i < n; ++i) hidden[i] = T(Gelu::Forward()(A(before[i])));
      return;
    case Activation::relu:
      for (int64_t i = 0; i < n; ++i) hidden[i] = T(Relu::Forward()(A(before[i])));
  }
}

/// before [gate | up] or [before] becomes its own gradient.
template <class T>
void activate_row_backward(Activation activation, T* before, T* up, const T* dhidden, int64_t n) {
  using A = Accumulator<T>;
  switch (activation) {
    case Activation::swiglu:
      return cpu::row_kernels<T>().swiglu_backward(before, up, dhidden, before, up, n);
    case Activation::gelu:
      for (int64_t i = 0; i < n; ++i) before[i] = T(Gelu::Backward()(A(dhidden[i]), A(before[i])));
      return;
    case Activation::relu:
      for (int64_t i = 0; i < n; ++i) before[i] = T(Relu::Backward()(A(dhidden[i]), A(before[i])));
  }
}

/// What the blocks share. T: what tensors hold; P: what operands are packed as.
template <class T, class P>
class Expert {
 public:
  using A = Accumulator<T>;

  Expert(const cpu::GemmBlocks<P>& blocks, const ExpertFfn::Operands& o)
      : gemm_(blocks), o_(o), D(o.x.shape(1)), F(o.down.shape(2)), B(o.up.shape(1)) {}

  /// The experts' answers [N, D].
  void forward(const Tensor& answers, const Block& block) const {
    const int64_t m = block.rows();
    P* const left = scratch<P>(Scratch::left, gemm_.left_size(m, D));
    gemm_.pack_left(left, m, D, gathered(o_.x, block, nullptr));
    const cpu::Pieces depths = gemm_.depths(F);
    const Sum sum(*this, answers, block);
    for (int64_t d = 0; d < depths.count; ++d) {
      const int64_t f = gemm_.depth_begin(depths, d), depth = gemm_.depth_size(depths, d, F);
      P* const hidden = scratch<P>(Scratch::hidden, gemm_.left_size(m, depth));
      for (int64_t at = 0; at < depth; at += kHot) {
        const int64_t n = std::min(kHot, depth - at);
        for (int64_t part = 0; part < B; part += F) make_before(left, block, part + f + at, n);
        T* const rows = scratch<T>(Scratch::slopes, m * n);
        for (int64_t i = 0; i < m; ++i) {
          const T* const before = before_row(block.begin + i) + f + at;
          activate_row(o_.activation, rows + i * n, before, before + F, n);
        }
        gemm_.pack_left_part(hidden, m, depth, at, n, {rows, dtype_of<T>, n, 1});
      }
      gemm_.multiply(hidden, m, D, depth, weight(o_.down, block.expert).from(0, f).transposed(), sum.at, D, d > 0);
    }
    sum.finish();
    if (o_.down_bias) cpu::add_bias(answers, block.begin, block.end, o_.down_bias, block.expert * D);
  }

  /// hidden [N, F] anew; dweight; `before` becomes its gradient, dx [N, D], where there is one, that of the rows.
  void backward(const Tensor& hidden, const Tensor& dweight, const Tensor& dx, const Tensor& dy,
                const Block& block) const {
    const int64_t m = block.rows();
    const auto pair = o_.plan.pair_of_row.data<const int32_t>();
    const auto w = o_.weight.data<const A>();
    const cpu::RowKernels<T>& rows = cpu::row_kernels<T>();
    const cpu::ConstMatrix slopes = gathered(dy, block, nullptr);
    P* const left = scratch<P>(Scratch::left, gemm_.left_size(m, std::max(D, kDepth)));
    gemm_.pack_left(left, m, D, slopes);
    T* const dhidden = scratch<T>(Scratch::slopes, m * F);
    into(dhidden, F, m, F, [&](A* to, int64_t stride) {
      gemm_.multiply(left, m, F, D, weight(o_.down, block.expert), to, stride, false);
    });
    for (int64_t i = 0; i < m; ++i) {
      const int64_t n = block.begin + i;
      const auto at = size_t(pair[size_t(n)]);
      T *const before = before_row(n), *const h = hidden.data<T>().data() + n * F, *const dh = dhidden + i * F;
      activate_row(o_.activation, h, before, before + F, F);
      A slope = rows.dot(dh, h, F);
      if (o_.down_bias)
        slope += rows.dot(static_cast<const T*>(slopes.data) + i * D,
                          o_.down_bias.data<const T>().data() + block.expert * D, D);
      dweight.data<A>()[at] = slope;
      rows.scale(dh, dh, w[at], F);
      activate_row_backward(o_.activation, before, before + F, dh, F);
    }
    if (!dx) return;
    const cpu::Pieces depths = gemm_.depths(B);
    const Sum sum(*this, dx, block);
    for (int64_t d = 0; d < depths.count; ++d) {
      const int64_t f = gemm_.depth_begin(depths, d), depth = gemm_.depth_size(depths, d, B);
      gemm_.pack_left(left, m, depth, cpu::matrix(o_.before).from(block.begin, f));
      gemm_.multiply(left, m, D, depth, weight(o_.up, block.expert).from(f, 0), sum.at, D, d > 0);
    }
    sum.finish();
  }

  /// Rows [row, row + m) and columns [column, column + n) of d[expert] = [d +] slopesᵀ rows, over the expert's rows.
  /// Either side is a matrix of the tokens (gathered here; the slopes weighed) or of the rows.
  void weight_gradient(const Tensor& d, bool add, const Tensor& slopes, bool gather_slopes, const Tensor& rows,
                       int64_t expert, int64_t row, int64_t m, int64_t column, int64_t n) const {
    const auto offset = o_.plan.offsets.data<const int32_t>();
    const int64_t begin = offset[size_t(expert)], count = offset[size_t(expert) + 1] - begin;
    if (count == 0 && add) return;
    const cpu::Pieces depths = cpu::Pieces::of((count + 1) / 2, kDepthOfRows / 2);
    visit_float(d.dtype(), [&]<class G>() {
      if constexpr (std::is_same_v<Accumulator<G>, A>)
        into(d.data<G>().data() + (expert * d.shape(1) + row) * d.shape(2) + column, d.shape(2), m, n,
             [&](A* to, int64_t stride) {
               if (count == 0)
                 for (int64_t i = 0; i < m; ++i) std::fill_n(to + i * stride, n, A(0));
               for (int64_t p = 0; p < depths.count; ++p) {
                 const int64_t first = begin + 2 * depths.begin(p);
                 const Block block{expert, first, std::min(begin + count, begin + 2 * depths.begin(p + 1))};
                 P* const left = scratch<P>(Scratch::left, gemm_.left_size(m, block.rows()));
                 const cpu::ConstMatrix a = gather_slopes ? gathered(slopes, block, o_.weight.data<const A>().data())
                                                          : cpu::matrix(slopes).from(first, 0);
                 gemm_.pack_left(left, m, block.rows(), a.from(0, row).transposed());
                 const cpu::ConstMatrix b =
                     gather_slopes ? cpu::matrix(rows).from(first, 0) : gathered(rows, block, nullptr);
                 gemm_.multiply(left, m, n, block.rows(), b.from(0, column), to, stride, add || p > 0);
               }
             });
    });
  }

 private:
  static constexpr int64_t kHot = 128;  // columns of the hidden layer between product and activation
  static constexpr int64_t kDepth = cpu::GemmBlocks<P>::kDepth;
  static constexpr int64_t kDepthOfRows = 384;  // rows over which a weight's gradient keeps its operands packed

  T* before_row(int64_t n) const { return o_.before.data<T>().data() + n * B; }

  cpu::ConstMatrix weight(const Tensor& w, int64_t expert) const { return cpu::matrix(w).from(expert * w.shape(1), 0); }

  /// The tokens' rows of x, times their pairs' weights unless those are null.
  cpu::ConstMatrix gathered(const Tensor& x, const Block& block, const A* weights) const {
    const auto pair = o_.plan.pair_of_row.data<const int32_t>(), token = o_.plan.token_of_pair.data<const int32_t>();
    T* const rows = scratch<T>(Scratch::rows, block.rows() * D);
    const T* const from = x.data<const T>().data();
    for (int64_t i = 0; i < block.rows(); ++i) {
      const auto at = size_t(pair[size_t(block.begin + i)]);
      const T* const row = from + token[at] * D;
      if (weights)
        cpu::row_kernels<T>().scale(rows + i * D, row, weights[at], D);
      else
        std::memcpy(rows + i * D, row, size_t(D) * sizeof(T));
    }
    return {rows, dtype_of<T>, D, 1};
  }

  /// Calls f(numbers, stride) with a place to make [m, n] in, and rounds what f left there if `to` is narrower.
  template <class G, class F_>
  static void into(G* to, int64_t stride, int64_t m, int64_t n, F_&& f) {
    if constexpr (std::is_same_v<G, A>) {
      f(to, stride);
    } else {
      A* const wide = scratch<A>(Scratch::wide, m * n);
      f(wide, n);
      for (int64_t i = 0; i < m; ++i)
        cpu::widest_gemm_instructions().round_to_bf16(reinterpret_cast<uint16_t*>(to + i * stride), wide + i * n, n);
    }
  }

  void make_before(const P* left, const Block& block, int64_t column, int64_t n) const {
    into(before_row(block.begin) + column, B, block.rows(), n, [&](A* to, int64_t stride) {
      gemm_.multiply(left, block.rows(), n, D, weight(o_.up, block.expert).from(column, 0).transposed(), to, stride,
                     false);
    });
    if (!o_.up_bias) return;
    const T* const bias = o_.up_bias.data<const T>().data() + block.expert * B + column;
    for (int64_t i = 0; i < block.rows(); ++i) {
      T* const row = before_row(block.begin + i) + column;
      for (int64_t j = 0; j < n; ++j) row[j] = T(A(row[j]) + A(bias[j]));
    }
  }

  /// Where sums over several depths go that end in a block of rows of y [N, D].
  struct Sum {
    A* at;
    T* rows;
    int64_t count;
    Sum(const Expert& e, const Tensor& y, const Block& block)
        : rows(y.data<T>().data() + block.begin * e.D), count(block.rows() * e.D) {
      if constexpr (std::is_same_v<T, A>)
        at = rows;
      else
        at = scratch<A>(Scratch::sums, count);
    }
    void finish() const {
      if constexpr (!std::is_same_v<T, A>)
        cpu::widest_gemm_instructions().round_to_bf16(reinterpret_cast<uint16_t*>(rows), at, count);
    }
  };

  const cpu::GemmBlocks<P>& gemm_;
  const ExpertFfn::Operands& o_;
  const int64_t D, F, B;  // B: width before the activation
};

/// Calls f(Expert) for the dtype of x.
template <class F>
void with_expert(const ExpertFfn::Operands& o, F&& f) {
  visit_float(o.x.dtype(), [&]<class T>() {
    cpu::with_gemm_blocks(cpu::widest_gemm_instructions(), o.x.dtype(), o.x.dtype(),
                          [&]<class P>(const cpu::GemmBlocks<P>& blocks) {
                            if constexpr (std::is_same_v<typename cpu::Packed<P>::Number, Accumulator<T>>)
                              f(Expert<T, P>(blocks, o));
                          });
  });
}

/// d[e] = [d +] the sum of each expert's slopesᵀ rows.
template <class E>
void weight_gradients(const E& expert, const Tensor& d, bool add, const Tensor& slopes, bool gather_slopes,
                      const Tensor& rows) {
  // Enough pieces for every thread, cut along the longer side: the shorter one's operand is packed for each piece.
  constexpr int64_t kUnit = 32;
  const int64_t experts = d.shape(0), height = d.shape(1), width = d.shape(2),
                units = (std::max(height, width) - 1) / kUnit + 1;
  const int64_t wanted = std::clamp<int64_t>((8 * threads() + experts - 1) / experts, 1, (units + 3) / 4);
  const cpu::Pieces pieces = cpu::Pieces::of(units, (units + wanted - 1) / wanted);
  parallel_tasks(experts * pieces.count, [&](int64_t task) {
    const int64_t e = task / pieces.count, i = task % pieces.count, first = pieces.begin(i) * kUnit;
    const int64_t n = std::min(std::max(height, width), pieces.begin(i + 1) * kUnit) - first;
    if (height > width)
      expert.weight_gradient(d, add, slopes, gather_slopes, rows, e, first, n, 0, width);
    else
      expert.weight_gradient(d, add, slopes, gather_slopes, rows, e, 0, height, first, n);
  });
}

}  // namespace

void ExpertFfn::Forward::cpu(const Tensor& y, const Operands& o) {
  const std::vector<Block> blocks = blocks_of(o.plan, o.x.shape(1));
  const Tensor answers({o.before.shape(0), o.x.shape(1)}, o.x.dtype());
  with_expert(o, [&](const auto& expert) {
    parallel_tasks(int64_t(blocks.size()), [&](int64_t i) { expert.forward(answers, blocks[size_t(i)]); });
  });
  Dispatch::Combine::cpu(y, answers, o.weight, o.plan);
}

void ExpertFfn::Backward::cpu(Gradients& g, const Tensor& dy, const Operands& o) {
  const std::vector<Block> blocks = blocks_of(o.plan, o.x.shape(1));
  const int64_t N = o.before.shape(0);
  const Tensor dweight(o.weight.shape(), o.weight.dtype());
  const Tensor dx = g.wants(o.x) ? Tensor({N, o.x.shape(1)}, o.x.dtype()) : Tensor();
  dweight.zero();
  with_expert(o, [&](const auto& expert) {
    {
      const Tensor hidden({N, o.down.shape(2)}, o.x.dtype());
      parallel_tasks(int64_t(blocks.size()),
                     [&](int64_t i) { expert.backward(hidden, dweight, dx, dy, blocks[size_t(i)]); });
      g.add(o.weight, dweight);
      give_gradient(g, o.down, [&](const Tensor& d, bool add) { weight_gradients(expert, d, add, dy, true, hidden); });
    }
    give_gradient(g, o.down_bias, [&](const Tensor& d, bool add) {
      const Tensor rows({N, o.x.shape(1)}, o.x.dtype()), unused(o.weight.shape(), o.weight.dtype());
      Dispatch::CombineBackward::cpu(rows, unused, dy, rows, o.weight, o.plan);
      GroupedLinear::Bias::cpu(d, add, rows, o.plan.offsets);
    });
    give_gradient(g, o.up, [&](const Tensor& d, bool add) { weight_gradients(expert, d, add, o.before, false, o.x); });
    give_gradient(g, o.up_bias,
                  [&](const Tensor& d, bool add) { GroupedLinear::Bias::cpu(d, add, o.before, o.plan.offsets); });
  });
  if (!dx) return;
  const Tensor dtokens(o.x.shape(), o.x.dtype());
  Dispatch::Combine::cpu(dtokens, dx, Tensor(), o.plan);
  g.add(o.x, dtokens);
}

}  // namespace agon
