#include "moe/dispatch.h"
#include "moe/journey.h"
#include "tests/moe/journey_steps.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

// Exchanges that are bounded, rounded, or forced on the own rank's rows.

namespace {

/// Tokens' pairs of rank `rank`, with room for more.
RandomPairs pairs_of(int rank, int64_t tokens = 12) {
  return random_pairs(tokens + rank, kExperts, 20 + uint64_t(rank), 4);
}

Pairs pairs_from(const RandomPairs& chosen) {
  Pairs pairs;
  pairs.expert = chosen.expert;
  pairs.token_offsets = chosen.token_offsets;
  return pairs;
}

/// Which of a rank's pairs stay or fit: to each other rank the first tokens' that fit whole.
std::vector<char> kept(const RandomPairs& chosen, int rank, int ranks, ExchangeBounds bounds) {
  const auto offset = chosen.token_offsets.data<const int32_t>(), expert = chosen.expert.data<const int32_t>();
  std::vector<char> keeps(expert.size(), 0);
  for (int to = 0; to < ranks; ++to) {
    int64_t rows = 0, pairs = 0;
    for (size_t t = 0; t + 1 < offset.size(); ++t) {
      std::vector<size_t> mine;
      for (auto i = size_t(offset[t]); i < size_t(offset[t + 1]); ++i)
        if (expert[i] / (kExperts / ranks) == to) mine.push_back(i);
      if (mine.empty()) continue;
      if (to != rank && (rows == bounds.rows || pairs + int64_t(mine.size()) > bounds.pairs)) break;
      for (size_t i : mine) keeps[i] = 1;
      ++rows;
      pairs += int64_t(mine.size());
    }
  }
  return keeps;
}

}  // namespace

TEST_CASE("journey: bounds that are never reached change no bit, in every strategy and precision") {
  const ExchangeOptions bounded{.bounded = true, .bound = 100};
  for (const LayerCase& c : layer_cases(kExperts))
    for (const Precision precision : {Precision::f64(), Precision::fp32(), Precision::bf16()}) {
      if (c.name == "toy" && precision.compute != DType::f64) continue;
      CAPTURE(c.name);
      for (const int ranks : {2, 4}) {
        const Outcome found = step(c, {.ranks = ranks, .exchange = bounded, .precision = precision});
        check_identical(found, step(c, {.ranks = ranks, .precision = precision}));
        CHECK(found.exchange_dropped == 0);
      }
    }
}

TEST_CASE("journey: what does not fit is dropped with its gradients, the last tokens first, and counted") {
  for (const ExchangeBounds bounds : {ExchangeBounds{5, 100}, {100, 9}, {0, 0}, {3, 1}})
    for (const int ranks : {2, 4})
      run_on_threads(ranks, [&](Communicator& comm) {
        const int64_t D = 3;
        const auto seed = uint64_t(comm.rank());
        const RandomPairs chosen = pairs_of(comm.rank());
        const int64_t N = chosen.expert.size();
        const Pairs pairs = pairs_from(chosen);
        const Plan plan = make_plan(pairs.expert, pairs.token_offsets, kExperts);
        const std::vector<char> keeps = kept(chosen, comm.rank(), ranks, bounds);
        const Journey journey(pairs, plan, kExperts, comm, {.bounded = true}, bounds);
        const int64_t used = pairs.token_offsets.data<int32_t>().back();
        check(journey.dropped() == used - std::ranges::count(keeps, 1) && journey.dropped() > 0, "dropped");

        Parameter x({pairs.token_offsets.size() - 1, D}, Precision::f64()), weight({N}, Precision::f64());
        fill_normal(x.value, {30 + seed}, 1);
        fill_normal(weight.value, {40 + seed}, 1);
        Parameter* all[] = {&x, &weight};
        // Experts that answer what they are asked: a weighed sum of copies, of which some are missing.
        const auto gradients = [&](const std::function<Tensor()>& f) {
          x.has_grad = weight.has_grad = false;
          Tape tape(all);
          const Tensor y = f();
          tape.backward(probe(y, 9));
          return std::vector<Tensor>{y, clone(x.grad), clone(weight.grad)};
        };
        const Tensor mask({N}, DType::f64);
        for (int64_t i = 0; i < N; ++i) mask.data<double>()[i] = keeps[size_t(i)];
        const auto expected = gradients([&] { return combine(permute(x, plan), multiply(weight, mask), plan); });
        const auto found = gradients([&] {
          const Tensor rows = permute(journey.out(x), journey.plan());
          return journey.home(combine(rows, journey.out_weight(weight), journey.plan()));
        });
        const auto uncombined = gradients(
            [&] { return combine(journey.rows_home(permute(journey.out(x), journey.plan())), weight, plan); });
        for (size_t i = 0; i < expected.size(); ++i) {
          check(relative_error(found[i], expected[i]) < 1e-14, "result ", i, " of sums");
          check(relative_error(uncombined[i], expected[i]) < 1e-14, "result ", i, " of rows");
        }
      });
}

TEST_CASE("journey: a layer whose exchange is bounded says what share of its pairs was dropped") {
  for (const LayerCase& c : layer_cases(kExperts)) {
    CAPTURE(c.name);
    const Outcome found = step(c, {.ranks = 4, .exchange = {.bounded = true, .bound = 0.02}});
    if (dot(found.load, found.load) == 0) continue;  // groups too small for an expert to choose of
    CHECK(found.exchange_dropped > 0.2);
    CHECK(found.exchange_dropped < 1);
    for (double v : found.dx.data<double>()) CHECK(std::isfinite(v));
  }
  // Outside training every pair travels.
  run_on_threads(2, [](Communicator& comm) {
    const LayerCase c = layer_cases(kExperts).front();
    MoeLayer tight(c.options, *c.router, kWidth, Precision::f64(), {0.8, 0.6, 0.6}, comm,
                   {.bounded = true, .bound = 0.02}),
        exact(c.options, *c.router, kWidth, Precision::f64(), {0.8, 0.6, 0.6}, comm);
    initialise(tight, 17);
    initialise(exact, 17);
    RouterContext context = context_of(0, kTokens);
    context.mode = Mode::eval;
    const Tensor x = random({kTokens, kWidth}, 1);
    const LayerOutput found = tight(x, context);
    check(identical(found.y, exact(x, context).y), "evaluation");
    check(!found.statistics.scalars().contains("exchange_dropped"), "a figure of training");
  });
}

TEST_CASE("journey: bounded, a step asks for the same addresses and sends as many bytes whatever the routing") {
  run_on_threads(2, [](Communicator& comm) {
    for (const LayerCase& c : layer_cases(kExperts)) {
      MoeLayer layer(c.options, *c.router, kWidth, Precision::f64(), {0.8, 0.6, 0.6}, comm,
                     {.bounded = true, .bound = 1});
      initialise(layer, 17);
      const std::vector<Parameter*> all = parameters(layer);
      RouterContext context = context_of(0, kTokens);
      context.compete = c.compete;
      int64_t bytes = 0;
      const auto step_of = [&](Arena& arena, uint64_t seed) {
        const int64_t before = comm.traffic()[Collective::all_to_all].sent;
        const Tensor x = random({kTokens, kWidth}, seed + 100 * uint64_t(comm.rank()));
        const Arena::Scope scope(arena);
        Tape tape(all);
        const LayerOutput out = layer(x, context);
        const void* const address = out.y.address();
        tape.backward(total(out, 1, 0, kTokens));
        bytes = comm.traffic()[Collective::all_to_all].sent - before;
        return address;
      };
      Arena measure;
      step_of(measure, 1);
      const int64_t expected = bytes;
      Arena slab(measure.extent());
      const void* const first = step_of(slab, 1);
      for (const uint64_t seed : {2, 3, 4}) {
        check(step_of(slab, seed) == first, c.name, ": another address");
        check(bytes == expected, c.name, ": ", bytes, " bytes, before ", expected);
      }
      check(slab.live() == 0 && slab.spilled() == 0 && slab.extent() == measure.extent(), c.name, ": extent");
    }
  });
}

TEST_CASE("journey: rows that travel as bf16 leave a layer within a hundredth, and what stays here is not rounded") {
  int compared = 0, other_winners = 0;
  for (const LayerCase& c : layer_cases(kExperts)) {
    if (c.name == "toy") continue;
    CAPTURE(c.name);
    const Outcome exact = step(c, {.ranks = 2, .precision = Precision::fp32()}),
                  found = step(c, {.ranks = 2, .exchange = {.bf16 = true}, .precision = Precision::fp32()}),
                  bounded = step(c, {.ranks = 2,
                                     .exchange = {.bounded = true, .bound = 100, .bf16 = true},
                                     .precision = Precision::fp32()});
    check_identical(bounded, found);
    check_identical(step(c, {.ranks = 2, .exchange = {.bf16 = true}}), step(c, {.ranks = 2}));  // f64 is never rounded
    if (dot(exact.load, exact.load) == 0) continue;  // groups too small for an expert to choose of
    if (!identical(found.load, exact.load)) {        // answers to rounded rows may win where they were close
      CHECK(c.compete);
      ++other_winners;
      continue;
    }
    ++compared;
    CHECK(relative_error(found.y, exact.y) < 1e-2);
    CHECK(relative_error(found.y, exact.y) > 1e-5);
    CHECK(relative_error(found.dx, exact.dx) < 2e-2);
    for (const auto& [name, gradient] : exact.gradients) {
      CAPTURE(name);
      CHECK(relative_error(found.gradients.at(name), gradient) < 2e-2);
    }
  }
  CHECK(compared > 12);
  CHECK(other_winners < 2);
  run_on_threads(2, [](Communicator& comm) {
    // Each rank's tokens want its own experts, but for the first token, which wants one of each.
    const int32_t mine = comm.rank() * 4, other = 4 - mine;
    Pairs pairs;
    pairs.expert = tensor_of<int32_t>({mine, other, mine + 1, mine + 2});
    pairs.token_offsets = tensor_of<int32_t>({0, 2, 3, 4});
    const Plan plan = make_plan(pairs.expert, pairs.token_offsets, kExperts);
    const Journey journey(pairs, plan, kExperts, comm, {.bf16 = true});
    const Tensor x = random({3, kWidth}, 3 + uint64_t(comm.rank()), 1, DType::f32), arrived = journey.out(x),
                 theirs = random({3, kWidth}, 4 - uint64_t(comm.rank()), 1, DType::f32);
    check(identical(slice(arrived, 0, 3), x), "own rows");
    check(identical(slice(arrived, 3, 4), converted(converted(slice(theirs, 0, 1), DType::bf16), DType::f32)),
          "the other's row");
    const Tensor y = journey.home(arrived);
    check(identical(slice(y, 1, 3), slice(x, 1, 3)), "sums of own rows");
  });
}

TEST_CASE("journey: own rows that are made to travel give the bits of those that stay, exact and bounded") {
  for (const LayerCase& c : layer_cases(kExperts))
    for (const Precision precision : {Precision::f64(), Precision::fp32(), Precision::bf16()}) {
      if (c.name == "toy" && precision.compute != DType::f64) continue;
      CAPTURE(c.name);
      const Outcome self = step(c, {.precision = precision});
      check_identical(step(c, {.exchange = {.own_too = true}, .precision = precision}), self);
      check_identical(step(c, {.exchange = {.bounded = true, .bound = 100, .own_too = true}, .precision = precision}),
                      self);
    }
}

TEST_CASE("journey: tokens without experts, none chosen at all, no tokens") {
  for (const bool bounded : {false, true})
    for (const bool own_too : {false, true})
      run_on_threads(2, [&](Communicator& comm) {
        for (const int64_t tokens : {0, 3}) {
          Pairs pairs;
          pairs.expert = tensor_of(std::vector<int32_t>(2, -1));  // room, not in use
          pairs.token_offsets = tensor_of(std::vector<int32_t>(size_t(tokens) + 1, 0));
          const Plan plan = make_plan(pairs.expert, pairs.token_offsets, kExperts);
          const std::optional<ExchangeBounds> bounds = bounded ? std::optional(ExchangeBounds{2, 3}) : std::nullopt;
          const Journey journey(pairs, plan, kExperts, comm, {.bounded = bounded, .own_too = own_too}, bounds);
          Parameter x({tokens, 3}, Precision::f64()), weight({2}, Precision::f64());
          fill_normal(x.value, {1}, 1);
          Parameter* all[] = {&x, &weight};
          Tape tape(all);
          const Tensor arrived = journey.out(x), rows = permute(arrived, journey.plan());
          const Tensor y = journey.home(combine(rows, journey.out_weight(weight), journey.plan()));
          check(y.shape() == Shape{tokens, 3}, "y ", y.shape());
          for (double v : y.data<double>()) check(v == 0, "a token without experts got ", v);
          check(journey.rows_home(rows).shape() == Shape{2, 3}, "rows");
          tape.backward(sum(y));
          for (double v : x.grad.data<double>()) check(v == 0, "gradient ", v);
        }
      });
}
