#include "moe/all_answers.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "autograd/tape.h"
#include "core/copy.h"
#include "moe/expert_ffn.h"
#include "ops/grouped_linear.h"

namespace agon {

namespace {

/// Rows [first, first + n) of a matrix, copied.
Tensor some_rows(const Tensor& x, int64_t first, int64_t n) {
  Tensor rows({n, x.shape(1)}, x.dtype(), x.device());
  run<MatrixPart::Take>(x.device(), rows, x, first, 0);
  return rows;
}

/// [e+1] i32: n rows, all of them expert e's.
Tensor all_for(int64_t e, int64_t experts, int64_t n, Device device) {
  Tensor offsets({experts + 1}, DType::i32, device);
  run<RowsOfOne>(device, offsets, e, n);
  return offsets;
}

/// Calls f(a row's elements in the part, in the whole) for every row of the part.
template <class P, class W, class F>
void each_row(const Tensor& part, const Tensor& whole, int64_t row, int64_t column, F&& f) {
  const int64_t n = part.shape(0), m = part.shape(1), width = whole.shape(1);
  for (int64_t i = 0; i < n; ++i)
    f(part.data<P>().data() + i * m, whole.data<W>().data() + (row + i) * width + column, m);
}

/// What all_answer_scores does on one rank: its experts and some tokens.
struct LocalAnswers {
  ExpertGroup const& experts;
  AnswerScore score;
  int64_t chunk_bytes;

  /// Calls f(e, first, rows of x) for every chunk of tokens and expert, chunks outermost.
  void each_chunk(const Tensor& x, const std::function<void(int64_t e, int64_t first, const Tensor& rows)>& f) const {
    const int64_t T = x.shape(0), n = tokens_of_chunk(experts, x, chunk_bytes);
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
  void backward(const AnswerGradients& into, const Tensor& dscores, const Tensor& x) const {
    run<LocalAnswerSlopes>(x.device(), into, dscores, x, experts, score, chunk_bytes);
  }
  void backward_in_steps(const AnswerGradients& into, const Tensor& dscores, const Tensor& x) const {
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

/// The tokens of rank r, on every rank.
Tensor tokens_of(int r, const Tensor& x, const std::vector<int64_t>& tokens, Communicator& comm) {
  if (comm.size() == 1) return x;
  const Tensor there = r == comm.rank() ? x : Tensor({tokens[size_t(r)], x.shape(1)}, x.dtype(), x.device());
  comm.broadcast(there, r);
  return there;
}

std::vector<int64_t> tokens_per_rank(const Tensor& x, Communicator& comm) {
  const Tensor all = comm.all_gather(tensor_of<int32_t>({int32_t(x.shape(0))}));
  const auto n = all.data<const int32_t>();
  return {n.begin(), n.end()};
}

/// [size * T, e], the experts of rank after rank, <-> [T, E].
void move_blocks(const Tensor& blocks, const Tensor& whole, int ranks, bool to_whole) {
  const int64_t T = whole.shape(0), each = whole.shape(1) / ranks;
  const Device at = whole.device();
  const Tensor block({T, each}, whole.dtype(), at);
  for (int64_t r = 0; r < ranks; ++r) {
    run<MatrixPart::Take>(at, block, to_whole ? blocks : whole, to_whole ? r * T : 0, to_whole ? 0 : r * each);
    run<MatrixPart::Put>(at, to_whole ? whole : blocks, block, to_whole ? 0 : r * T, to_whole ? r * each : 0);
  }
}

/// Rows one after the other.
Tensor stacked(const std::vector<Tensor>& parts, int64_t width) {
  int64_t n = 0;
  for (const Tensor& p : parts) n += p.shape(0);
  Tensor all({n, width}, parts.front().dtype(), parts.front().device());
  n = 0;
  for (const Tensor& p : parts) {
    run<MatrixPart::Put>(all.device(), all, p, n, 0);
    n += p.shape(0);
  }
  return all;
}

Tensor answer_scores_of_all(const Tensor& x, const LocalAnswers& local, Communicator& comm) {
  if (comm.size() == 1) return local.scores(x);
  const int64_t T = x.shape(0), each = local.experts.experts();
  const std::vector<int64_t> tokens = tokens_per_rank(x, comm), mine(size_t(comm.size()), T);
  std::vector<Tensor> there;
  for (int r = 0; r < comm.size(); ++r) there.push_back(local.scores(tokens_of(r, x, tokens, comm)));
  const Tensor blocks = comm.all_to_all(stacked(there, each), tokens, mine);
  Tensor all({T, each * comm.size()}, blocks.dtype(), blocks.device());
  move_blocks(blocks, all, comm.size(), true);
  return all;
}

/// Adds to the experts' gradients and returns dx, empty where it is not wanted.
Tensor backward_of_all(const Tensor& x, const Tensor& dscores, const LocalAnswers& local, AnswerGradients into,
                       bool wants_x, Communicator& comm) {
  const auto with_x = [&](const Tensor& tokens) {
    AnswerGradients all = into;
    if (wants_x || comm.size() > 1) all.x = Tensor(tokens.shape(), x.dtype(), x.device());
    return all;
  };
  if (comm.size() == 1) {
    const AnswerGradients all = with_x(x);
    local.backward(all, dscores, x);
    return all.x;
  }
  const int64_t T = x.shape(0), each = local.experts.experts();
  const std::vector<int64_t> tokens = tokens_per_rank(x, comm), mine(size_t(comm.size()), T);
  const Tensor leaving({T * comm.size(), each}, dscores.dtype(), dscores.device());
  move_blocks(leaving, dscores, comm.size(), false);
  const Tensor arrived = comm.all_to_all(leaving, mine, tokens);
  Tensor dx;
  int64_t first = 0;
  for (int r = 0; r < comm.size(); ++r) {
    const Tensor there = tokens_of(r, x, tokens, comm);
    const AnswerGradients all = with_x(there);
    const int64_t n = tokens[size_t(r)];
    const Tensor part = some_rows(arrived, first, n);
    local.backward(all, part, there);
    comm.all_reduce(all.x);
    if (r == comm.rank()) dx = all.x;
    first += n;
  }
  return wants_x ? dx : Tensor();
}

}  // namespace

int64_t tokens_of_chunk(const ExpertGroup& experts, const Tensor& x, int64_t chunk_bytes) {
  const int64_t D = x.shape(1), F = experts.hidden(), before = experts.up.value.shape(1);
  const int64_t each = size_of(x.dtype()) * (D + before + F + D);
  return std::clamp<int64_t>(chunk_bytes / each, 1, std::max<int64_t>(x.shape(0), 1));
}

void LocalAnswerScores::in_steps(const Tensor& scores, const Tensor& x, const ExpertGroup& experts, AnswerScore score,
                                 int64_t chunk_bytes) {
  LocalAnswers{experts, score, chunk_bytes}.scores_in_steps(scores, x);
}

void LocalAnswerSlopes::in_steps(const AnswerGradients& into, const Tensor& dscores, const Tensor& x,
                                 const ExpertGroup& experts, AnswerScore score, int64_t chunk_bytes) {
  LocalAnswers{experts, score, chunk_bytes}.backward_in_steps(into, dscores, x);
}

void MatrixPart::Take::cpu(const Tensor& part, const Tensor& whole, int64_t row, int64_t column) {
  visit_float(part.dtype(), [&]<class P>() {
    visit_float(whole.dtype(), [&]<class W>() {
      each_row<P, const W>(part, whole, row, column, [](P* to, const W* from, int64_t m) {
        std::transform(from, from + m, to, [](W v) { return convert<P>(v); });
      });
    });
  });
}

void MatrixPart::Put::cpu(const Tensor& whole, const Tensor& part, int64_t row, int64_t column) {
  visit_float(part.dtype(), [&]<class P>() {
    visit_float(whole.dtype(), [&]<class W>() {
      each_row<const P, W>(part, whole, row, column, [](const P* from, W* to, int64_t m) {
        std::transform(from, from + m, to, [](P v) { return convert<W>(v); });
      });
    });
  });
}

void RowsOfOne::cpu(const Tensor& offsets, int64_t expert, int64_t n) {
  const auto offset = offsets.data<int32_t>();
  for (size_t i = 0; i < offset.size(); ++i) offset[i] = int64_t(i) > expert ? int32_t(n) : 0;
}

Tensor all_answer_scores(const Tensor& x, const ExpertGroup& experts, AnswerScore score, int64_t chunk_bytes,
                         Communicator& comm, bool differentiable) {
  check(x.shape().rank() == 2 && x.shape(1) == experts.up.value.shape(2) && x.dtype() == experts.up.value.dtype(),
        "all_answer_scores: x ", x.shape(), " of ", x.dtype(), " for experts of width ", experts.up.value.shape(2),
        " in ", experts.up.value.dtype());
  Tensor scores = answer_scores_of_all(x, {experts, score, chunk_bytes}, comm);
  if (!differentiable) return scores;
  const Tensor &up = experts.up, &down = experts.down, &up_bias = experts.up_bias, &down_bias = experts.down_bias;
  return record("all_answer_scores", {&x, &up, &down, &up_bias, &down_bias}, scores,
                [x, &experts, score, chunk_bytes, &comm](Gradients& g, const Tensor& dscores) {
                  std::vector<std::pair<const Tensor*, Tensor>> made;
                  const auto place = [&](const Tensor& p) -> Tensor {  // zeros, or what is there already
                    if (!g.wants(p)) return {};
                    if (g.owns(p)) {
                      const auto [grad, add] = g.target(p);
                      return add ? grad.reshape(p.shape()) : grad.reshape(p.shape()).zero();
                    }
                    return made.emplace_back(&p, Tensor(p.shape(), p.dtype(), p.device()).zero()).second;
                  };
                  const AnswerGradients into{
                      place(experts.up), place(experts.down), place(experts.up_bias), place(experts.down_bias), {}};
                  const Tensor dx = backward_of_all(x, dscores, {experts, score, chunk_bytes}, into, g.wants(x), comm);
                  for (const auto& [p, gradient] : made) g.add(*p, gradient);
                  if (dx) g.add(x, dx);
                });
}

}  // namespace agon
