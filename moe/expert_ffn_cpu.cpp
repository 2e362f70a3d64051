#include <cstring>
#include <vector>

#include "autograd/tape.h"
#include "moe/cpu/expert_rows.h"
#include "moe/dispatch.h"
#include "moe/expert_ffn.h"
#include "ops/cpu/groups.h"
#include "ops/grouped_linear.h"
#include "ops/parameter_gradient.h"

// The whole of an expert for a block of its rows at a time, gathered while they are packed. Blocks are one flat list
// over all experts, and their cut changes no bit.

namespace agon {

namespace {

using Block = cpu::GroupBlock;
using cpu::Scratch, cpu::scratch;

/// What a row of a product comes from: a matrix of the rows themselves, or one of tokens, gathered here, weighed or
/// not.
struct RowSource {
  const Tensor& matrix;
  enum Kind { rows, tokens, weighed_tokens } kind;
};

/// The experts of expert_ffn, or of expert_answers, and their rows.
template <class T, class P>
class RoutedRows {
 public:
  using A = Accumulator<T>;

  RoutedRows(const cpu::ExpertRows<T, P>& experts, const ExpertFfn::Operands& o)
      : e_(experts), o_(o), D(e_.D), F(e_.F), B(e_.B) {}

  /// The experts' answers [N, D], and `before`.
  void forward(const Tensor& answers, const Block& block) const {
    const int64_t m = block.rows();
    P* const left = scratch<P>(Scratch::left, e_.gemm.left_size(m, D));
    e_.gemm.pack_left(left, m, D, rows_of({o_.x, RowSource::tokens}, block));
    T* const before = before_row(block.begin);
    e_.answer(answers.data<T>().data() + block.begin * D, left, m, block.group, [&](int64_t f, int64_t) {
      return typename cpu::ExpertRows<T, P>::Before{before + f, B, F};
    });
  }

  /// hidden [N, F] anew; `before` becomes its gradient, dx [N, D], where there is one, that of the rows. dy: of the
  /// weighed sums [T, D], then dweight is made too, or of the answers [N, D].
  void backward(const Tensor& hidden, const Tensor& dweight, const Tensor& dx, const Tensor& dy,
                const Block& block) const {
    const int64_t m = block.rows();
    const auto pair = o_.plan.pair_of_row.data<const int32_t>();
    const A* const weight = o_.weight ? o_.weight.data<const A>().data() : nullptr;
    const cpu::RowKernels<T>& rows = cpu::row_kernels<T>();
    const cpu::ConstMatrix slopes = rows_of({dy, weight ? RowSource::tokens : RowSource::rows}, block);
    P* const left = scratch<P>(Scratch::left, e_.gemm.left_size(m, std::max(D, cpu::GemmBlocks<P>::kDepth)));
    e_.gemm.pack_left(left, m, D, slopes);
    T* const dhidden = scratch<T>(Scratch::slopes, m * F);
    cpu::make_rounded<A>(dhidden, F, m, F, [&](A* to, int64_t stride) {
      e_.gemm.multiply(left, m, F, D, e_.weight(o_.down, block.group), to, stride, false);
    });
    for (int64_t i = 0; i < m; ++i) {
      const int64_t n = block.begin + i;
      const auto at = size_t(pair[size_t(n)]);
      const A w = weight ? weight[at] : A(1);
      T *const before = before_row(n), *const h = hidden.data<T>().data() + n * F, *const dh = dhidden + i * F;
      A slope;
      if (o_.activation == Activation::swiglu) {
        slope = rows.swiglu_weighed(h, before, before + F, dh, w, F);
      } else {
        cpu::activate_row(o_.activation, h, before, before + F, F);
        slope = rows.dot_scale(dh, dh, h, w, F);
        cpu::activate_row_backward(o_.activation, before, before + F, dh, F);
      }
      if (!weight) continue;
      if (o_.down_bias)
        slope += rows.dot(static_cast<const T*>(slopes.data) + i * D,
                          o_.down_bias.data<const T>().data() + block.group * D, D);
      dweight.data<A>()[at] = slope;
    }
    if (!dx) return;
    const cpu::Pieces depths = e_.gemm.depths(B);
    cpu::make_rounded<A>(dx.data<T>().data() + block.begin * D, D, m, D, [&](A* to, int64_t stride) {
      for (int64_t d = 0; d < depths.count; ++d) {
        const int64_t f = e_.gemm.depth_begin(depths, d), depth = e_.gemm.depth_size(depths, d, B);
        e_.gemm.pack_left(left, m, depth, cpu::matrix(o_.before).from(block.begin, f));
        e_.gemm.multiply(left, m, D, depth, e_.weight(o_.up, block.group).from(f, 0), to, stride, d > 0);
      }
    });
  }

  /// A piece of d[expert] = [d +] slopesᵀ rows, over the expert's rows.
  void weight_gradient(const Tensor& d, bool add, const RowSource& slopes, const RowSource& rows,
                       const cpu::GroupPiece& piece) const {
    const auto [expert, row, m, column, n] = piece;
    const auto offset = o_.plan.offsets.data<const int32_t>();
    const int64_t begin = offset[size_t(expert)], count = offset[size_t(expert) + 1] - begin;
    if (count == 0 && add) return;
    const cpu::Pieces depths = cpu::Pieces::of((count + 1) / 2, kDepthOfRows / 2);
    visit_float(d.dtype(), [&]<class G>() {
      check(!add || std::is_same_v<G, A>, "a gradient of ", d.dtype(), " cannot be added to");
      if constexpr (std::is_same_v<Accumulator<G>, A>)
        cpu::make_rounded<A>(
            d.data<G>().data() + (expert * d.shape(1) + row) * d.shape(2) + column, d.shape(2), m, n,
            [&](A* to, int64_t stride) {
              if (count == 0)
                for (int64_t i = 0; i < m; ++i) std::fill_n(to + i * stride, n, A(0));
              for (int64_t p = 0; p < depths.count; ++p) {
                const int64_t first = begin + 2 * depths.begin(p);
                const Block block{expert, first, std::min(begin + count, begin + 2 * depths.begin(p + 1))};
                P* const left = scratch<P>(Scratch::left, e_.gemm.left_size(m, block.rows()));
                e_.gemm.pack_left(left, m, block.rows(), rows_of(slopes, block).from(0, row).transposed());
                e_.gemm.multiply(left, m, n, block.rows(), rows_of(rows, block).from(0, column), to, stride,
                                 add || p > 0);
              }
            });
    });
  }

 private:
  static constexpr int64_t kDepthOfRows = 384;  // rows over which a weight's gradient keeps its operands packed

  T* before_row(int64_t n) const { return o_.before.data<T>().data() + n * B; }

  /// [block's rows, D, or as wide as a matrix of rows]. One gathered matrix at a time.
  cpu::ConstMatrix rows_of(const RowSource& from, const Block& block) const {
    if (from.kind == RowSource::rows) return cpu::matrix(from.matrix).from(block.begin, 0);
    const auto pair = o_.plan.pair_of_row.data<const int32_t>(),
               token = o_.plan.token_of_pair.data<const int32_t>();
    T* const rows = scratch<T>(Scratch::rows, block.rows() * D);
    const T* const tokens = from.matrix.data<const T>().data();
    for (int64_t i = 0; i < block.rows(); ++i) {
      const auto at = size_t(pair[size_t(block.begin + i)]);
      const T* const row = tokens + token[at] * D;
      if (from.kind == RowSource::weighed_tokens)
        cpu::row_kernels<T>().scale(rows + i * D, row, o_.weight.data<const A>()[at], D);
      else
        std::memcpy(rows + i * D, row, size_t(D) * sizeof(T));
    }
    return {rows, dtype_of<T>, D, 1};
  }

  const cpu::ExpertRows<T, P>& e_;
  const ExpertFfn::Operands& o_;
  const int64_t D, F, B;  // B: width before the activation
};

/// Calls f(RoutedRows) for the dtype of x.
template <class F>
void with_rows(const ExpertFfn::Operands& o, F&& f) {
  cpu::with_expert_rows(
      o.x.dtype(), o.up, o.down, o.up_bias, o.down_bias, o.activation,
      [&]<class T, class P>(const cpu::ExpertRows<T, P>& experts) { f(RoutedRows<T, P>(experts, o)); });
}

/// d[e] = [d +] the sum of each expert's slopesᵀ rows.
template <class Rows>
void weight_gradients(const Rows& routed, const Tensor& d, bool add, const RowSource& slopes, const RowSource& rows) {
  cpu::each_group_piece(d.shape(0), d.shape(1), d.shape(2),
                        [&](const cpu::GroupPiece& piece) { routed.weight_gradient(d, add, slopes, rows, piece); });
}

/// The answers' gradients [N, D] from those of their weighed sums.
Tensor weighed_slopes(const Tensor& dy, const ExpertFfn::Operands& o) {
  const Tensor weighed({o.before.shape(0), o.x.shape(1)}, o.x.dtype()), unused(o.weight.shape(), o.weight.dtype());
  Dispatch::CombineBackward::cpu(weighed, unused, dy, weighed, o.weight, o.plan);
  return weighed;
}

}  // namespace

void ExpertFfn::Forward::cpu(const Tensor& y, const Operands& o) {
  const std::vector<Block> blocks = cpu::group_blocks(o.plan.offsets, o.x.shape(1));
  const Tensor answers = o.weight ? Tensor({o.before.shape(0), o.x.shape(1)}, o.x.dtype()) : y;
  with_rows(o, [&](const auto& rows) {
    parallel_tasks(int64_t(blocks.size()), [&](int64_t i) { rows.forward(answers, blocks[size_t(i)]); });
  });
  if (o.weight) return Dispatch::Combine::cpu(y, answers, o.weight, o.plan);
  const int64_t used = o.plan.offsets.data<const int32_t>().back();
  std::memset(cpu::output(y).from(used, 0).data, 0, size_t((y.shape(0) - used) * y.shape(1) * size_of(y.dtype())));
}

void ExpertFfn::Backward::cpu(Gradients& g, const Tensor& dy, const Operands& o) {
  const std::vector<Block> blocks = cpu::group_blocks(o.plan.offsets, o.x.shape(1));
  const int64_t N = o.before.shape(0);
  const Tensor dweight = o.weight ? Tensor(o.weight.shape(), o.weight.dtype()).zero() : Tensor();
  const Tensor dx = g.wants(o.x) ? Tensor({N, o.x.shape(1)}, o.x.dtype()) : Tensor();
  const RowSource slopes{dy, o.weight ? RowSource::weighed_tokens : RowSource::rows};
  with_rows(o, [&](const auto& rows) {
    {
      const Tensor hidden({N, o.down.shape(2)}, o.x.dtype());
      parallel_tasks(int64_t(blocks.size()),
                     [&](int64_t i) { rows.backward(hidden, dweight, dx, dy, blocks[size_t(i)]); });
      if (dweight) g.add(o.weight, dweight);
      give_gradient(g, o.down, [&](const Tensor& d, bool add) {
        weight_gradients(rows, d, add, slopes, {hidden, RowSource::rows});
      });
    }
    give_gradient(g, o.down_bias, [&](const Tensor& d, bool add) {
      GroupedLinear::Bias::cpu(d, add, o.weight ? weighed_slopes(dy, o) : dy, o.plan.offsets);
    });
    give_gradient(g, o.up, [&](const Tensor& d, bool add) {
      weight_gradients(rows, d, add, {o.before, RowSource::rows}, {o.x, RowSource::tokens});
    });
    give_gradient(g, o.up_bias,
                  [&](const Tensor& d, bool add) { GroupedLinear::Bias::cpu(d, add, o.before, o.plan.offsets); });
  });
  if (!dx) return;
  const Tensor dtokens(o.x.shape(), o.x.dtype());
  Dispatch::Combine::cpu(dtokens, dx, Tensor(), o.plan);
  g.add(o.x, dtokens);
}

}  // namespace agon
