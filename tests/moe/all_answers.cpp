#include "moe/all_answers.h"

#include <doctest/doctest.h>

#include <mutex>

#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/moe/against_cpu.h"
#include "tests/moe/support.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kTokens = 13, kExperts = 4, kWidth = 6, kHidden = 5;

ExpertGroup experts_of(const Communicator& comm, Activation activation = Activation::swiglu,
                       Precision precision = Precision::f64(), Device device = {}) {
  ExpertGroup all(kExperts, kWidth, kHidden, activation, true, precision, 1, 1);
  fill_parameters(all, 7);
  const int64_t each = kExperts / comm.size();
  ExpertGroup mine(each, kWidth, kHidden, activation, true, precision, 1, 1);
  std::vector<Parameter*> from = parameters(all), to = parameters(mine);
  for (size_t i = 0; i < from.size(); ++i) {
    copy(to[i]->master, slice(from[i]->master, comm.rank() * each, (comm.rank() + 1) * each));
    to[i]->refresh();
  }
  move_to(mine, device);
  return mine;
}

/// Every expert's answers, without chunks: [T, E].
Tensor plainly(const Tensor& x, const ExpertGroup& experts, AnswerScore score) {
  const Tensor all({x.shape(0), kExperts}, accumulator_dtype(x.dtype()));
  for (int64_t e = 0; e < kExperts; ++e) {
    std::vector<int32_t> offsets(size_t(kExperts) + 1, 0);
    std::fill(offsets.begin() + e + 1, offsets.end(), int32_t(x.shape(0)));
    const Tensor a = answer_scores(experts(x, tensor_of(offsets)), score);
    visit_accumulator(a.dtype(), [&]<class A>() {
      for (int64_t t = 0; t < x.shape(0); ++t) all.data<A>()[size_t(t * kExperts + e)] = a.data<const A>()[size_t(t)];
    });
  }
  return all;
}

}  // namespace

TEST_CASE("all_answers: the same bits for any chunk, in every precision, also as the winners' own rows give") {
  const auto self = make_self_communicator();
  for (const Precision precision : {Precision::f64(), Precision::fp32(), Precision::bf16()}) {
    const ExpertGroup experts = experts_of(*self, Activation::gelu, precision);
    const Tensor x = random({kTokens, kWidth}, 2, 1, precision.compute);
    for (const std::string& name : answer_score_names()) {
      CAPTURE(name);
      const AnswerScore score = answer_score_named(name);
      const Tensor expected = plainly(x, experts, score);
      for (int64_t bytes : {int64_t(1), int64_t(600), int64_t(1) << 20})
        CHECK(identical(all_answer_scores(x, experts, score, bytes, *self, false), expected));
    }
  }
}

TEST_CASE("all_answers: gradients agree with finite differences for any chunk, and are absent unless asked for") {
  const auto self = make_self_communicator();
  const Tensor direction = random({kTokens, kExperts}, 5);
  for (const Activation activation : {Activation::swiglu, Activation::relu})
    for (int64_t bytes : {int64_t(1), int64_t(1) << 20}) {
      ExpertGroup experts = experts_of(*self, activation);
      Parameter x({kTokens, kWidth}, Precision::f64());
      copy(x.value, random({kTokens, kWidth}, 3));
      std::vector<Parameter*> all = parameters(experts);
      all.push_back(&x);
      const auto f = [&](bool differentiable) {
        return sum(multiply(all_answer_scores(x, experts, AnswerScore::softplus_mean, bytes, *self, differentiable),
                            direction));
      };
      CHECK(gradient_error(all, [&] { return f(true); }) < 1e-7);
      Tape tape(all);
      f(false);
      CHECK(tape.size() == 0);
    }
}

TEST_CASE("all_answers: two and four ranks equal one, forward and backward, with ranks that have no token") {
  const Tensor all_x = random({kTokens, kWidth}, 3), direction = random({kTokens, kExperts}, 5);
  struct Outcome {
    Tensor scores{{kTokens, kExperts}, DType::f64}, dx{{kTokens, kWidth}, DType::f64};
    std::vector<Tensor> gradients;
  };
  const auto on = [&](int ranks) {
    Outcome outcome;
    std::mutex mutex;
    run_on_threads(ranks, [&](Communicator& comm) {
      const int64_t first = comm.rank() * kTokens / ranks,
                    last = ranks == 4 && comm.rank() == 1 ? first : (comm.rank() + 1) * kTokens / ranks,
                    begin = ranks == 4 && comm.rank() == 2 ? kTokens / ranks : first;  // rank 2 has rank 1's too
      ExpertGroup experts = experts_of(comm);
      Parameter x({last - begin, kWidth}, Precision::f64());
      copy(x.value, slice(all_x, begin, last));
      std::vector<Parameter*> all = parameters(experts);
      all.push_back(&x);
      Tape tape(all);
      const Tensor a = all_answer_scores(x, experts, AnswerScore::l2_norm, 500, comm, true);
      tape.backward(sum(multiply(a, slice(direction, begin, last))));
      const std::lock_guard lock(mutex);
      std::ranges::copy(a.data<double>(), outcome.scores.data<double>().begin() + begin * kExperts);
      std::ranges::copy(x.grad.data<double>(), outcome.dx.data<double>().begin() + begin * kWidth);
      const auto parts = parameters(experts);
      for (size_t i = 0; i < parts.size(); ++i) {
        const Shape shape = parts[i]->value.shape();
        if (outcome.gradients.size() == i) outcome.gradients.emplace_back(shape.with(0, kExperts), DType::f64);
        std::ranges::copy(parts[i]->grad.data<double>(),
                          outcome.gradients[i].data<double>().begin() + comm.rank() * parts[i]->grad.size());
      }
    });
    return outcome;
  };
  const Outcome one = on(1);
  for (int ranks : {2, 4}) {
    CAPTURE(ranks);
    const Outcome many = on(ranks);
    CHECK(identical(many.scores, one.scores));
    CHECK(relative_error(many.dx, one.dx) < 1e-13);
    REQUIRE(many.gradients.size() == one.gradients.size());
    for (size_t i = 0; i < one.gradients.size(); ++i)
      CHECK(relative_error(many.gradients[i], one.gradients[i]) < 1e-13);
  }
}

TEST_CASE("all_answers: on several ranks memory grows by a token's scores and gradient, not by what is gathered") {
  run_on_threads(2, [](Communicator& comm) {
    ExpertGroup experts = experts_of(comm);
    const auto peaks = [&](int64_t tokens) {
      const Tensor x = random({tokens, kWidth}, 3), direction = random({tokens, kExperts}, 5);
      std::vector<Parameter*> all = parameters(experts);
      Arena arena;
      const Arena::Scope scope(arena);
      Tape tape(all);
      tape.watch(x);
      const Tensor scores = all_answer_scores(x, experts, AnswerScore::l2_norm, 8192, comm, true);
      const auto forward = int64_t(arena.peak());
      const Tensor loss = sum(multiply(scores, direction));
      tape.backward(loss);
      return std::pair{forward, int64_t(arena.peak())};
    };
    const auto few = peaks(64), many = peaks(1024);
    const int64_t more = 1024 - 64;
    check(many.first - few.first <= more * kExperts * 8 * 5 / 4, "forward: ", many.first - few.first, " bytes more");
    check(many.second - few.second <= more * (3 * kExperts + kWidth) * 8 * 5 / 4,
          "backward: ", many.second - few.second, " bytes more");
  });
}

DEVICE_CASE("all_answers: offsets of one expert") {
  for (int64_t e = 0; e < 3; ++e) {
    const Tensor offsets({4}, DType::i32, device_of_case());
    run<RowsOfOne>(device_of_case(), offsets, e, 9);
    CHECK(identical(offsets, tensor_of<int32_t>({0, e < 1 ? 9 : 0, e < 2 ? 9 : 0, 9})));
  }
}

GPU_CASE("all_answers: as on the CPU in f64 for any chunk, forward and backward, without crossing") {
  const auto self = make_self_communicator();
  const Tensor x64 = random({kTokens, kWidth}, 3), direction = random({kTokens, kExperts}, 5);
  const auto outcome = [&](Precision precision, const std::string& name, int64_t bytes, Device device) {
    ExpertGroup experts = experts_of(*self, Activation::swiglu, precision, device);
    const std::vector<Parameter*> all = parameters(experts);
    const Tensor x = agon::on_device(converted(x64, precision.compute), device),
                 dy = agon::on_device(converted(direction, accumulator_dtype(precision.compute)), device),
                 loss({1}, dy.dtype(), device);
    const Crossings before = crossings();
    Tape tape(all);
    tape.watch(x);
    const Tensor a = all_answer_scores(x, experts, answer_score_named(name), bytes, *self, true);
    tape.backward(record("given", {&a}, loss, [a, dy](Gradients& g, const Tensor&) { g.add(a, dy); }));
    CHECK(crossings().to_host == before.to_host);
    CHECK(crossings().to_device == before.to_device);
    std::vector<Tensor> found{a, tape.gradient(x)};
    for (const Parameter* p : all) found.push_back(clone(p->grad));
    return found;
  };
  for (const std::string& name : answer_score_names()) {
    CAPTURE(name);
    const std::vector<Tensor> expected = outcome(Precision::f64(), name, 1 << 20, {});
    for (const Precision precision : {Precision::fp32(), Precision::bf16()}) {
      const double tolerance = precision.compute == DType::bf16 ? 3e-2 : 1e-5;
      const std::vector<Tensor> whole = outcome(precision, name, 1 << 20, device_of_case());
      for (const int64_t bytes : {int64_t(1), int64_t(600), int64_t(1) << 20}) {
        CAPTURE(bytes);
        const ThreadOrder changed(uint64_t(bytes % 3));
        const std::vector<Tensor> found = outcome(precision, name, bytes, device_of_case());
        CHECK(identical(found[0], whole[0]));
        CHECK(identical(found[1], whole[1]));
        for (size_t i = 0; i < found.size(); ++i) {
          CAPTURE(i);
          CHECK(relative_error(found[i], expected[i]) < tolerance);
        }
      }
    }
  }
}
