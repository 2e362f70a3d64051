#include "ops/linear_cross_entropy.h"

#include <algorithm>
#include <vector>

#include "autograd/tape.h"
#include "core/copy.h"
#include "core/parallel.h"
#include "ops/cpu/cross_entropy.h"
#include "ops/cpu/matrix.h"
#include "ops/cross_entropy.h"
#include "ops/parameter_gradient.h"

namespace agon {

namespace {

/// One block of rows against the vocabulary, chunk after chunk.
template <class A>
class Block {
 public:
  Block(const Tensor& x, const Tensor& w, const Tensor& logits, int64_t begin, int64_t rows)
      : x_(cpu::matrix(x).from(begin, 0)),
        w_(cpu::matrix(w)),
        logits_(logits),
        rows_(rows),
        width_(x.shape(1)),
        classes_(w.shape(0)) {}

  /// Calls f(first class, classes of the chunk) for each chunk, ascending; makes the chunk's logits first unless they
  /// are there.
  template <class F>
  void each_chunk(F&& f) {
    for (int64_t i = 0; i < chunks(); ++i) chunk(i, f);
  }
  /// The same from the last chunk to the first, which stays for a second round.
  template <class F>
  void each_chunk_back(F&& f) {
    for (int64_t i = chunks() - 1; i >= 0; --i) chunk(i, f);
  }
  A* row(int64_t t) const { return logits_.data<A>().data() + t * logits_.shape(1); }
  cpu::Matrix output() const { return cpu::output(logits_); }
  /// The chunk's logits have become their gradient: adds g wc to dx (over it, for the first chunk) and gᵀ x to dwc.
  void to_dx(cpu::Matrix dx, int64_t first, int64_t n) const {
    cpu::parallel_gemm(rows_, width_, n, cpu::matrix(logits_), w_.from(first, 0), dx, first > 0);
  }
  void to_dw(cpu::Matrix dw, int64_t n, bool add) const {
    cpu::parallel_gemm(n, width_, rows_, cpu::matrix(logits_).transposed(), x_, dw, add);
  }

 private:
  int64_t chunks() const { return (classes_ + logits_.shape(1) - 1) / logits_.shape(1); }

  template <class F>
  void chunk(int64_t i, F&& f) {
    const int64_t first = i * logits_.shape(1), n = std::min(logits_.shape(1), classes_ - first);
    if (first != present_) cpu::parallel_gemm(rows_, n, width_, x_, w_.from(first, 0).transposed(), output());
    present_ = first;
    f(first, n);
  }

  cpu::ConstMatrix x_, w_;
  const Tensor& logits_;
  int64_t rows_, width_, classes_, present_ = -1;
};

void store(const Tensor& dx, int64_t begin, const Tensor& wide, int64_t rows) {
  const int64_t width = dx.shape(1);
  const float* from = wide.data<const float>().data();
  bf16* to = dx.data<bf16>().data() + begin * width;
  parallel_ranges(rows * width, 16384, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) to[i] = bf16(from[i]);
  });
}

template <class A>
void blocks(const CrossEntropy& result, const Tensor& dx, const Tensor& dw, const Tensor& x, const Tensor& w,
            const Tensor& target, double denominator, LinearCrossEntropyForward::Block most) {
  const int64_t tokens = x.shape(0), width = x.shape(1), classes = w.shape(0);
  const auto per_token = result.per_token.data<A>();
  const auto label = target.data<const int32_t>();
  const Tensor logits({std::min(most.rows, tokens), std::min(most.classes, classes)}, dtype_of<A>);
  // The chunks' contributions to dx are one sum only if none is rounded on the way.
  const bool rounds = dx && dx.dtype() == DType::bf16 && classes > most.classes;
  const Tensor wide = rounds ? Tensor({std::min(most.rows, tokens), width}, dtype_of<A>) : Tensor();
  for (int64_t begin = 0; begin < tokens; begin += most.rows) {
    const int64_t rows = std::min(most.rows, tokens - begin);
    Block<A> block(x, w, logits, begin, rows);
    std::vector<cpu::SoftmaxSum<A>> sums(static_cast<size_t>(rows));
    std::vector<A> picked(sums.size());
    const auto each_row = [&](auto&& f) {
      parallel_ranges(rows, 16, [&](int64_t from, int64_t to) {
        for (int64_t t = from; t < to; ++t)
          if (label[begin + t] >= 0) f(t, label[begin + t]);
      });
    };
    block.each_chunk_back([&](int64_t first, int64_t n) {
      each_row([&](int64_t t, int64_t id) {
        sums[t].take(block.row(t), n);
        if (id >= first && id < first + n) picked[t] = block.row(t)[id - first];
      });
    });
    std::fill_n(&per_token[begin], rows, A(0));
    each_row([&](int64_t t, int64_t) { per_token[begin + t] = sums[t].loss(picked[t]); });
    if (!dx && !dw) continue;
    block.each_chunk([&](int64_t first, int64_t n) {
      parallel_ranges(rows, 16, [&](int64_t from, int64_t to) {
        for (int64_t t = from; t < to; ++t) {
          const int64_t id = label[begin + t];
          if (id >= 0)
            cpu::cross_entropy_gradient(block.row(t), block.row(t), n, sums[t], id - first, A(1 / denominator));
          else
            std::fill_n(block.row(t), n, A(0));
        }
      });
      if (dx) block.to_dx(rounds ? cpu::output(wide) : cpu::output(dx).from(begin, 0), first, n);
      if (dw) block.to_dw(cpu::output(dw).from(first, 0), n, begin > 0);
    });
    if (rounds) store(dx, begin, wide, rows);
  }
  if (dw && tokens == 0) dw.zero();
}

}  // namespace

void LinearCrossEntropyForward::cpu(const CrossEntropy& result, const Tensor& dx, const Tensor& dw, const Tensor& x,
                                    const Tensor& w, const Tensor& target, double denominator, Block most) {
  cpu::check_targets(target, w.shape(0));
  // Of a vocabulary up to 8192 no logit is made twice; a small one takes many rows at once.
  constexpr int64_t kLogits = int64_t(1) << 21, kRows = 256;
  if (most.classes == 0) most.classes = std::clamp<int64_t>(w.shape(0), 1, kLogits / kRows);
  if (most.rows == 0) most.rows = kLogits / most.classes;
  visit_accumulator(result.loss.dtype(),
                    [&]<class A>() { blocks<A>(result, dx, dw, x, w, target, denominator, most); });
}

void AddScaled::cpu(const Tensor& dw, bool add, const Tensor& from, const Tensor& dloss) {
  const double by = dloss.item();
  visit_float(dw.dtype(), [&]<class T>() {
    visit_accumulator(from.dtype(), [&]<class F>() {
      using A = Accumulator<T>;
      const auto to = dw.data<T>();
      const auto x = from.data<const F>();
      parallel_ranges(int64_t(to.size()), 16384, [&](int64_t begin, int64_t end) {
        for (auto i = size_t(begin); i < size_t(end); ++i) to[i] = T((add ? A(to[i]) : A(0)) + A(x[i] * F(by)));
      });
    });
  });
}

CrossEntropy linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& target, double denominator) {
  check(x.shape().rank() == 2 && w.shape().rank() == 2 && x.shape(1) == w.shape(1) && x.dtype() == w.dtype(),
        "linear_cross_entropy: x ", x.shape(), " of ", x.dtype(), " does not go with w ", w.shape(), " of ", w.dtype());
  check(target.dtype() == DType::i32 && target.shape() == Shape{x.shape(0)}, "linear_cross_entropy: target ",
        target.shape(), " of ", target.dtype(), ", expected i32 ", Shape{x.shape(0)});
  const DType dtype = accumulator_dtype(x.dtype());
  CrossEntropy result{Tensor({1}, dtype, x.device()), Tensor({x.shape(0)}, dtype, x.device())};
  const Tensor dx = recording({&x}) ? Tensor(x.shape(), x.dtype(), x.device()) : Tensor();
  const Tensor dw = recording({&w}) ? Tensor(w.shape(), dtype, w.device()) : Tensor();
  run<LinearCrossEntropyForward>(x.device(), result, dx, dw, x, w, target, denominator);
  run<MeanLoss>(x.device(), result.loss, result.per_token, denominator);
  record("linear_cross_entropy", {&x, &w}, result.loss,
         [x = x.without_data(), w = w.without_data(), dx, dw](Gradients& g, const Tensor& dloss) {
           if (dx) {
             run<ScaleGradient>(dx.device(), dx, dloss);
             g.add(x, dx);
           }
           if (dw)
             give_gradient(g, w,
                           [&](const Tensor& grad, bool add) { run<AddScaled>(dw.device(), grad, add, dw, dloss); });
         });
  return result;
}

}  // namespace agon
