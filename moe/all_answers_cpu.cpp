#include <algorithm>
#include <cstring>

#include "core/copy.h"
#include "core/parallel.h"
#include "moe/all_answers.h"
#include "moe/cpu/routed_rows.h"
#include "ops/grouped_linear.h"

// All experts' answers, a block of tokens and one expert at a time, while they are in the cache.

namespace agon {

void LocalAnswerScores::cpu(const Tensor& scores, const Tensor& x, const ExpertGroup& experts, AnswerScore score,
                            int64_t) {
  const int64_t n = x.shape(0), E = experts.experts();
  const int64_t fair = std::clamp<int64_t>(n * E / (12 * threads()), 64, 256);
  const cpu::Pieces blocks = cpu::Pieces::of(n, fair);
  const Tensor &up = experts.up, &down = experts.down, &up_bias = experts.up_bias, &down_bias = experts.down_bias;
  cpu::with_expert_rows(x.dtype(), up, down, up_bias, down_bias, experts.activation,
                        [&]<class T, class P>(const cpu::ExpertRows<T, P>& rows) {
                          using cpu::Scratch, cpu::scratch;
                          parallel_tasks(E * blocks.count, [&](int64_t task) {
                            const int64_t e = task / blocks.count, i = task % blocks.count, first = blocks.begin(i),
                                          m = blocks.size(i);
                            P* const left = scratch<P>(Scratch::left, rows.gemm.left_size(m, rows.D));
                            rows.gemm.pack_left(left, m, rows.D, cpu::matrix(x).from(first, 0));
                            T* const answers = scratch<T>(Scratch::rows, m * rows.D);
                            rows.answer(answers, left, m, e, [&](int64_t, int64_t columns) {
                              return typename cpu::ExpertRows<T, P>::Before{
                                  scratch<T>(Scratch::before, 2 * m * columns), 2 * columns, columns};
                            });
                            for (int64_t j = 0; j < m; ++j)
                              scores.data<Accumulator<T>>()[size_t((first + j) * E + e)] =
                                  AnswerScores::of_row(answers + j * rows.D, rows.D, score);
                          });
                        });
}

namespace {

/// Row i is token i.
Plan same_order(int64_t n, int64_t experts) {
  const Tensor row({n}, DType::i32), offsets({experts + 1}, DType::i32);
  fill_steps(row, 0, 1);
  return {row, row, row, offsets, {}};
}

/// Backward for some tokens: expert after expert takes all of them as its rows.
class ChunkSlopes {
 public:
  ChunkSlopes(const AnswerGradients& into, const Tensor& x, const ExpertGroup& experts)
      : into_(into), rows_(x.shape(), x.dtype()), hidden_({x.shape(0), experts.hidden()}, x.dtype()) {
    if (into.x) dx_ = Tensor(x.shape(), x.dtype());
    o_.x = x;
    o_.plan = same_order(x.shape(0), experts.experts());
    o_.up = experts.up;
    o_.down = experts.down;
    o_.up_bias = experts.up_bias;
    o_.down_bias = experts.down_bias;
    o_.activation = experts.activation;
    o_.before = Tensor({x.shape(0), experts.up.value.shape(1)}, x.dtype());
  }

  /// dscores [n, e]; sum [n, D] += dx, where that is wanted.
  void add(int64_t e, const Tensor& dscores, AnswerScore score, const Tensor& sum) const {
    RowsOfOne::cpu(o_.plan.offsets, e, o_.x.shape(0));
    const std::vector<cpu::GroupBlock> blocks = cpu::group_blocks(o_.plan.offsets, o_.x.shape(1));
    cpu::with_routed_rows(o_, [&]<class T, class P>(const cpu::RoutedRows<T, P>& routed) {
      parallel_tasks(int64_t(blocks.size()), [&](int64_t i) {
        const cpu::GroupBlock& block = blocks[size_t(i)];
        routed.forward(rows_, block);
        slopes<T>(block, e, dscores, score);
        routed.backward(hidden_, {}, dx_, rows_, block);
        if (dx_) add_dx<T>(block, sum);
      });
      using cpu::RowSource;
      if (into_.down) weight_gradient(routed, into_.down, e, {rows_, RowSource::rows}, {hidden_, RowSource::rows});
      if (into_.up) weight_gradient(routed, into_.up, e, {o_.before, RowSource::rows}, {o_.x, RowSource::rows});
    });
    if (into_.down_bias) GroupedLinear::Bias::cpu(into_.down_bias, true, rows_, o_.plan.offsets);
    if (into_.up_bias) GroupedLinear::Bias::cpu(into_.up_bias, true, o_.before, o_.plan.offsets);
  }

 private:
  /// The answers become their gradients.
  template <class T>
  void slopes(const cpu::GroupBlock& block, int64_t e, const Tensor& dscores, AnswerScore score) const {
    using A = Accumulator<T>;
    const int64_t D = rows_.shape(1), E = dscores.shape(1);
    for (int64_t i = block.begin; i < block.end; ++i) {
      T* const row = rows_.data<T>().data() + i * D;
      AnswerScores::slopes_of_row(row, row, dscores.data<const A>()[size_t(i * E + e)], D, score);
    }
  }

  template <class T>
  void add_dx(const cpu::GroupBlock& block, const Tensor& sum) const {
    using A = Accumulator<T>;
    const T* const from = dx_.data<const T>().data();
    A* const to = sum.data<A>().data();
    for (int64_t i = block.begin * sum.shape(1); i < block.end * sum.shape(1); ++i) to[i] += A(from[i]);
  }

  template <class Rows>
  static void weight_gradient(const Rows& routed, const Tensor& d, int64_t e, const cpu::RowSource& slopes,
                              const cpu::RowSource& rows) {
    cpu::each_group_piece(1, d.shape(1), d.shape(2), [&](cpu::GroupPiece piece) {
      piece.group = e;
      routed.weight_gradient(d, true, slopes, rows, piece);
    });
  }

  const AnswerGradients& into_;
  Tensor rows_, hidden_, dx_;
  ExpertFfn::Operands o_;
};

}  // namespace

void LocalAnswerSlopes::cpu(const AnswerGradients& into, const Tensor& dscores, const Tensor& x,
                            const ExpertGroup& experts, AnswerScore score, int64_t chunk_bytes) {
  const int64_t T = x.shape(0), n = tokens_of_chunk(experts, x, chunk_bytes);
  const auto part = [&](const Tensor& whole, int64_t first, int64_t rows) {
    if (rows == whole.shape(0)) return whole;
    Tensor some({rows, whole.shape(1)}, whole.dtype());
    MatrixPart::Take::cpu(some, whole, first, 0);
    return some;
  };
  for (int64_t first = 0; first < T; first += n) {
    const int64_t rows = std::min(n, T - first);
    const ChunkSlopes chunk(into, part(x, first, rows), experts);
    const Tensor of_scores = part(dscores, first, rows);
    const Tensor sum = into.x ? Tensor({rows, x.shape(1)}, accumulator_dtype(x.dtype())).zero() : Tensor();
    for (int64_t e = 0; e < experts.experts(); ++e) chunk.add(e, of_scores, score, sum);
    if (into.x) MatrixPart::Put::cpu(into.x, sum, first, 0);
  }
}

}  // namespace agon
