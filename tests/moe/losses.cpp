#include "moe/losses.h"

#include <doctest/doctest.h>

#include <cmath>

#include "distributed/communicator.h"
#include "moe/counts.h"
#include "moe/weights.h"
#include "ops/softmax.h"
#include "tests/moe/gpu_loss.h"

using namespace agon;
using namespace agon::testing;

namespace {

Tensor uniform_probabilities(int64_t tokens, int64_t experts) {
  Tensor p({tokens, experts}, DType::f64);
  fill(p, 1. / double(experts));
  return p;
}

/// T tokens, token t has the experts t and t + 1 modulo E.
Pairs round_robin(int64_t tokens, int64_t experts) {
  std::vector<int32_t> expert, offsets{0};
  for (int64_t t = 0; t < tokens; ++t) {
    expert.insert(expert.end(), {int32_t(t % experts), int32_t((t + 1) % experts)});
    offsets.push_back(int32_t(expert.size()));
  }
  Pairs pairs;
  pairs.expert = pairs.chosen = tensor_of(expert);
  pairs.token_offsets = pairs.chosen_offsets = tensor_of(offsets);
  pairs.logits = pairs.scores = uniform_probabilities(tokens, experts);
  return pairs;
}

}  // namespace

TEST_CASE("losses: uniform routing has balance 1, negative entropy -log E and z-loss log² E") {
  const Pairs pairs = round_robin(12, 4);
  const Tensor p = uniform_probabilities(12, 4), zero({12, 4}, DType::f64);
  zero.zero();
  for (const std::vector<int32_t>& scopes : {std::vector<int32_t>{0, 12}, {0, 4, 12}, {0, 0, 8, 12}}) {
    const Tensor scope = tensor_of(scopes), counts = count_experts(pairs.expert, pairs.token_offsets, scope, 4);
    CHECK(load_balance(p, counts, scope).item() == doctest::Approx(1));
    CHECK(negative_entropy(p, scope).item() == doctest::Approx(-std::log(4)));
  }
  CHECK(router_z(zero).item() == doctest::Approx(std::log(4) * std::log(4)));
}

TEST_CASE("losses: values against the formulas, per scope weighed by tokens") {
  const int64_t T = 300, E = 5;
  const Tensor logits = random({T, E}, 1), p = softmax(logits), scope = tensor_of<int32_t>({0, 130, 131, 300});
  const RandomPairs pairs = random_pairs(T, E, 3);
  const Tensor counts = count_experts(pairs.expert, pairs.token_offsets, scope, E);
  const auto at = scope.data<const int32_t>();
  double balance = 0, entropy = 0, z = 0;
  for (size_t s = 0; s < 3; ++s) {
    double pairs_of_scope = 0;
    std::vector<double> count(E), mean(E);
    for (int64_t t = at[s]; t < at[s + 1]; ++t)
      for (int64_t e = 0; e < E; ++e) mean[size_t(e)] += p.data<double>()[t * E + e] / (at[s + 1] - at[s]);
    for (int32_t i = pairs.token_offsets.data<int32_t>()[at[s]]; i < pairs.token_offsets.data<int32_t>()[at[s + 1]];
         ++i) {
      ++count[size_t(pairs.expert.data<int32_t>()[i])];
      ++pairs_of_scope;
    }
    const double tokens = double(at[s + 1] - at[s]) / double(T);
    for (size_t e = 0; e < size_t(E); ++e) {
      CHECK(counts.data<double>()[int64_t(s) * E + int64_t(e)] == count[e]);
      if (pairs_of_scope > 0) balance += tokens * double(E) * count[e] / pairs_of_scope * mean[e];
      entropy += tokens * mean[e] * std::log(mean[e]);
    }
  }
  for (int64_t t = 0; t < T; ++t) {
    double sum = 0;
    for (int64_t e = 0; e < E; ++e) sum += std::exp(logits.data<double>()[t * E + e]);
    z += std::log(sum) * std::log(sum) / double(T);
  }
  CHECK(load_balance(p, counts, scope).item() == doctest::Approx(balance));
  CHECK(negative_entropy(p, scope).item() == doctest::Approx(entropy));
  CHECK(router_z(logits).item() == doctest::Approx(z));

  const auto balanced = [&](const auto& in) { return load_balance(softmax(in[0]), counts, scope); };
  CHECK(gradient_error({logits}, balanced) < 1e-7);
  CHECK(gradient_error({logits}, [&](const auto& in) { return negative_entropy(softmax(in[0]), scope); }) < 1e-7);
  CHECK(gradient_error({logits}, [&](const auto& in) { return router_z(in[0]); }) < 1e-7);
}

TEST_CASE("losses: only those with a coefficient, by name, the global balance counts the step so far on all ranks") {
  const Pairs pairs = round_robin(6, 3);
  RouterContext context;
  context.sequence_offsets = tensor_of<int32_t>({0, 2, 6});
  LossOptions options;
  CHECK(make_losses(options, pairs, pairs.scores, context).empty());
  options = {.balance_coefficient = 0.5, .z_coefficient = 0.25, .entropy_coefficient = 0.125};
  const Losses losses = make_losses(options, pairs, pairs.scores, context);
  REQUIRE(losses.size() == 3);
  CHECK(losses[0].name == "balance");
  CHECK(losses[0].coefficient == 0.5);
  CHECK(losses[1].name == "z");
  CHECK(losses[2].name == "entropy");

  Tensor p = softmax(random({6, 3}, 5));
  options = {.balance_coefficient = 1, .balance_scope = "global"};
  context.counts_so_far = tensor_of<double>({10, 0, 2});
  const double mean_first[3] = {dot(p, tensor_of<double>({1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0})) / 6,
                                dot(p, tensor_of<double>({0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0})) / 6,
                                dot(p, tensor_of<double>({0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1})) / 6};
  run_on_threads(2, [&](Communicator& comm) {  // each rank has 4 pairs per expert: 8 in all
    RouterContext mine = context;
    mine.comm = &comm;
    const double found = make_losses(options, pairs, p, mine)[0].value.item();
    CHECK(found == doctest::Approx(3 * (18 * mean_first[0] + 8 * mean_first[1] + 10 * mean_first[2]) / 36));
  });
  context.mode = Mode::eval;  // no step, no other ranks: what is here
  CHECK(make_losses(options, pairs, p, context)[0].value.item() == doctest::Approx(1));
}

TEST_CASE("losses: no tokens") {
  const Pairs pairs = round_robin(0, 3);
  const LossOptions options{.balance_coefficient = 1, .z_coefficient = 1, .entropy_coefficient = 1};
  for (const Loss& loss : make_losses(options, pairs, pairs.scores, {})) CHECK(loss.value.item() == 0);
}

namespace {

/// Losses of probabilities and logits on a GPU, for these scopes.
void check_losses_on_gpu(int64_t tokens, int64_t experts, const std::vector<int32_t>& scopes) {
  CAPTURE(tokens);
  CAPTURE(experts);
  const RandomPairs pairs = random_pairs(tokens, experts, 3, 4);
  const Tensor logits = random({tokens, experts}, 1, 2), scope = tensor_of(scopes);
  Tensor p = softmax(logits);
  const auto counts = [&] {
    return count_experts(there(pairs.expert), there(pairs.token_offsets), there(scope), experts);
  };
  check_loss_on_gpu({p}, [&](const auto& in) { return load_balance(in[0], counts(), there(scope)); });
  check_loss_on_gpu({p}, [&](const auto& in) { return negative_entropy(in[0], there(scope)); });
  check_loss_on_gpu({logits}, [&](const auto& in) { return router_z(in[0]); });
}

}  // namespace

GPU_CASE("losses: values and gradients as on the CPU, over scopes of any length") {
  check_losses_on_gpu(300, 5, {0, 130, 131, 300});
  check_losses_on_gpu(300, 70, {0, 0, 7, 7, 7, 290, 300, 300});
  check_losses_on_gpu(1000, 33, {0, 1000});
  check_losses_on_gpu(1, 3, {0, 1});
  check_losses_on_gpu(9, 1, {0, 4, 9});
  std::vector<int32_t> each;
  for (int32_t t = 0; t <= 65; ++t) each.push_back(t);
  check_losses_on_gpu(65, 8, each);
}

GPU_CASE("losses: probabilities of 0 and logits far from it") {
  const Tensor scope = tensor_of<int32_t>({0, 1, 3});
  const Tensor p = tensor_of<double>({1, 0, 0, 0, 0, 1, 0, 0.5, 0.5}).reshape({3, 3});
  check_loss_on_gpu({p}, [&](const auto& in) { return negative_entropy(in[0], there(scope)); });
  const Tensor z = tensor_of<double>({1e4, -1e4, 0, -300, -301, -302}).reshape({2, 3});
  check_loss_on_gpu({z}, [&](const auto& in) { return router_z(in[0]); });
}

DEVICE_CASE("losses: no tokens, on every device") {
  const Tensor none = there(Tensor({0, 3}, DType::f32)), scope = there(tensor_of<int32_t>({0, 0}));
  const Tensor counts = count_experts(there(Tensor({0}, DType::i32)), there(tensor_of<int32_t>({0})), scope, 3);
  for (const LossOf& loss_of : std::vector<LossOf>{[&](const auto& in) { return load_balance(in[0], counts, scope); },
                                                   [&](const auto& in) { return negative_entropy(in[0], scope); },
                                                   [&](const auto& in) { return router_z(in[0]); }}) {
    const LossAndGradients found = differentiate({none}, loss_of);
    CHECK(found.loss.item() == 0);
    CHECK(found.gradients[0].size() == 0);
  }
}

GPU_CASE("losses: those of a config as on the CPU, over every scope, and nothing crosses on the way") {
  Pairs pairs = round_robin(6, 3);
  pairs.logits = converted(random({6, 3}, 5), DType::f32);
  const Tensor p = softmax(pairs.logits);
  RouterContext context;
  context.sequence_offsets = tensor_of<int32_t>({0, 2, 6});
  context.counts_so_far = tensor_of<double>({10, 0, 2});
  Pairs pairs_there = pairs;
  RouterContext context_there = context;
  for (Tensor* t : {&pairs_there.logits, &pairs_there.chosen, &pairs_there.chosen_offsets}) *t = there(*t);
  context_there.sequence_offsets_there = there(context.sequence_offsets);
  context_there.counts_so_far = there(context.counts_so_far);
  const Tensor p_there = there(p);
  for (const char* scope : {"batch", "sequence", "global"}) {
    CAPTURE(scope);
    const LossOptions options{
        .balance_coefficient = 1, .z_coefficient = 1, .entropy_coefficient = 1, .balance_scope = scope, .group = 1};
    const Losses expected = make_losses(options, pairs, p, context);
    const Losses found = without_crossing([&] { return make_losses(options, pairs_there, p_there, context_there); });
    REQUIRE(found.size() == 3);
    for (size_t i = 0; i < 3; ++i) {
      CHECK(found[i].value.device() == device_of_case());
      CHECK(found[i].value.item() == doctest::Approx(expected[i].value.item()).epsilon(1e-6));
    }
  }
}
