#include "moe/all_answers.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "autograd/tape.h"
#include "core/copy.h"
#include "core/parallel.h"
#include "moe/cpu/expert_rows.h"
#include "moe/expert_ffn.h"
#include "moe/matrix_part.h"
#include "moe/shared_tokens.h"
#include "ops/grouped_linear.h"

namespace agon {

namespace {

/// [e+1] i32: n rows, all of them expert e's.
Tensor all_for(int64_t e, int64_t experts, int64_t n, Device device) {
  Tensor offsets({experts + 1}, DType::i32, device);
  run<RowsOfOne>(device, offsets, e, n);
  return offsets;
}

/// What all_answer_scores does on one rank: its experts and some tokens.
struct LocalAnswers {
  ExpertGroup const& experts;
  AnswerScore score;
  int64_t chunk_bytes;

  /// Tokens whose inner activations and answer by one expert fit the chunk.
  int64_t tokens_at_once(const Tensor& x) const {
    const int64_t D = x.shape(1), F = experts.hidden(), before = experts.up.value.shape(1);
    const int64_t each = size_of(x.dtype()) * (D + before + F + D);
    return std::clamp<int64_t>(chunk_bytes / each, 1, std::max<int64_t>(x.shape(0), 1));
  }

  /// Calls f(e, first, rows of x) for every chunk of tokens and expert, chunks outermost.
  void each_chunk(const Tensor& x, const std::function<void(int64_t e, int64_t first, const Tensor& rows)>& f) const {
    const int64_t T = x.shape(0), n = tokens_at_once(x);
    for (int64_t first = 0; first < T; first += n) {
      const Tensor rows = n >= T ? x : some_rows(x, first, std::min(n, T - first));
      for (int64_t e = 0; e < experts.experts(); ++e) f(e, first, rows);
    }
  }

  /// The hidden layer before and after its activation, and the answers, of one expert.
  struct Answers {
    Tensor before, hidden, rows;
  };
  Answers answers(const Tensor& x, const Tensor& offsets, bool keep) const {
    const int64_t n = x.shape(0);
    Answers a;
    a.before = Tensor({n, experts.up.value.shape(1)}, x.dtype(), x.device());
    run<GroupedLinear::Forward>(x.device(), a.before, x, experts.up, offsets, experts.up_bias);
    a.hidden = Tensor({n, experts.hidden()}, x.dtype(), x.device());
    ExpertFfn::activate(a.hidden, a.before, experts.activation);
    if (!keep) a.before = {};
    a.rows = Tensor(x.shape(), x.dtype(), x.device());
    run<GroupedLinear::Forward>(x.device(), a.rows, a.hidden, experts.down, offsets, experts.down_bias);
    return a;
  }

  /// x [n, D] -> [n, e].
  Tensor scores(const Tensor& x) const {
    Tensor all({x.shape(0), experts.experts()}, accumulator_dtype(x.dtype()), x.device());
    run<LocalAnswerScores>(x.device(), all, x, experts, score, chunk_bytes);
    return all;
  }
  void scores_in_steps(const Tensor& all, const Tensor& x) const {
    const int64_t E = experts.experts();
    each_chunk(x, [&](int64_t e, int64_t first, const Tensor& rows) {
      const int64_t n = rows.shape(0);
      const Tensor column({n, 1}, all.dtype(), x.device());
      run<AnswerScores::Forward>(x.device(), column, answers(rows, all_for(e, E, n, x.device()), false).rows, score);
      run<MatrixPart::Put>(x.device(), all, column, first, e);
    });
  }

  /// Gradients of the experts, and dx [n, D] where it is wanted, from dscores [n, e].
  struct Into {
    Tensor up, down, up_bias, down_bias;  // to be added to; empty where nobody wants them
    Tensor x;                             // to be written
  };
  void backward(const Tensor& x, const Tensor& dscores, const Into& into) const {
    const int64_t E = experts.experts();
    Tensor sum;  // of the experts' dx for the tokens of a chunk, rounded once
    each_chunk(x, [&](int64_t e, int64_t first, const Tensor& rows) {
      const int64_t n = rows.shape(0);
      const Device at = x.device();
      const Tensor offsets = all_for(e, E, n, at), column({n, 1}, dscores.dtype(), at);
      run<MatrixPart::Take>(at, column, dscores, first, e);
      const Answers a = answers(rows, offsets, true);
      run<AnswerScores::Backward>(at, a.rows, column, a.rows, score);  // an element is read before it is written
      if (into.down) run<GroupedLinear::Weight>(at, into.down, true, a.rows, a.hidden, offsets);
      if (into.down_bias) run<GroupedLinear::Bias>(at, into.down_bias, true, a.rows, offsets);
      run<GroupedLinear::Input>(at, a.hidden, a.rows, experts.down, offsets);
      ExpertFfn::activate_backward(a.before, a.hidden, experts.activation);
      if (into.up) run<GroupedLinear::Weight>(at, into.up, true, a.before, rows, offsets);
      if (into.up_bias) run<GroupedLinear::Bias>(at, into.up_bias, true, a.before, offsets);
      if (!into.x) return;
      run<GroupedLinear::Input>(at, a.rows, a.before, experts.up, offsets);
      if (e == 0) sum = Tensor(rows.shape(), accumulator_dtype(x.dtype()), at).zero();
      run<Sum>(at, sum, sum, a.rows);
      if (e + 1 == E) run<MatrixPart::Put>(at, into.x, sum, first, 0);
    });
  }
};

}  // namespace

void LocalAnswerScores::in_steps(const Tensor& scores, const Tensor& x, const ExpertGroup& experts, AnswerScore score,
                                 int64_t chunk_bytes) {
  LocalAnswers{experts, score, chunk_bytes}.scores_in_steps(scores, x);
}

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

void RowsOfOne::cpu(const Tensor& offsets, int64_t expert, int64_t n) {
  const auto offset = offsets.data<int32_t>();
  for (size_t i = 0; i < offset.size(); ++i) offset[i] = int64_t(i) > expert ? int32_t(n) : 0;
}

Tensor all_answer_scores(const Tensor& x, const ExpertGroup& experts, AnswerScore score, int64_t chunk_bytes,
                         Communicator& comm, bool differentiable, const ExchangeOptions& exchange) {
  check(x.shape().rank() == 2 && x.shape(1) == experts.up.value.shape(2) && x.dtype() == experts.up.value.dtype(),
        "all_answer_scores: x ", x.shape(), " of ", x.dtype(), " for experts of width ", experts.up.value.shape(2),
        " in ", experts.up.value.dtype());
  const LocalAnswers local{experts, score, chunk_bytes};
  std::shared_ptr<const SharedTokens> shared;  // empty where there is one rank
  if (comm.size() > 1 || exchange.own_too) shared = std::make_shared<SharedTokens>(x, chunk_bytes, comm, exchange);
  Tensor scores;
  if (shared) {
    scores = Tensor({x.shape(0), experts.experts() * comm.size()}, accumulator_dtype(x.dtype()), x.device());
    shared->each_chunk(
        [&](const SharedTokens::Chunk& c) { shared->numbers_home(c, local.scores(shared->gathered(c, x)), scores); });
  } else {
    scores = local.scores(x);
  }
  if (!differentiable) return scores;
  const Tensor &up = experts.up, &down = experts.down, &up_bias = experts.up_bias, &down_bias = experts.down_bias;
  return record("all_answer_scores", {&x, &up, &down, &up_bias, &down_bias}, scores,
                [x, &experts, local, shared](Gradients& g, const Tensor& dscores) {
                  std::vector<std::pair<const Tensor*, Tensor>> made;
                  const auto place = [&](const Tensor& p) -> Tensor {  // zeros, or what is there already
                    if (!g.wants(p)) return {};
                    if (g.owns(p)) {
                      const auto [grad, add] = g.target(p);
                      return add ? grad.reshape(p.shape()) : grad.reshape(p.shape()).zero();
                    }
                    return made.emplace_back(&p, Tensor(p.shape(), p.dtype(), p.device()).zero()).second;
                  };
                  LocalAnswers::Into into{
                      place(experts.up), place(experts.down), place(experts.up_bias), place(experts.down_bias), {}};
                  const Tensor dx = g.wants(x) ? Tensor(x.shape(), x.dtype(), x.device()) : Tensor();
                  if (shared) {
                    shared->each_chunk([&](const SharedTokens::Chunk& c) {
                      const Tensor tokens = shared->gathered(c, x), slopes = shared->numbers_out(c, dscores);
                      if (dx) into.x = Tensor(tokens.shape(), x.dtype(), x.device());
                      local.backward(tokens, slopes, into);
                      if (dx) shared->sum_home(c, into.x, dx);
                    });
                  } else {
                    into.x = dx;
                    local.backward(x, dscores, into);
                  }
                  for (const auto& [p, gradient] : made) g.add(*p, gradient);
                  if (dx) g.add(x, dx);
                });
}

}  // namespace agon
