#include "moe/journey.h"

#include <doctest/doctest.h>

#include <mutex>
#include <set>

#include "core/parallel.h"
#include "moe/dispatch.h"
#include "tests/moe/layers.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

// Sixteen tokens in four sequences, unevenly spread over four ranks: one has none.
const std::vector<int32_t> kFirst{0, 5, 5, 14, 16}, kSequences{0, 5, 11, 14, 16};
constexpr int64_t kTokens = 16, kExperts = 8;

/// The first token of each of `ranks` ranks, and the end.
std::vector<int64_t> cuts(int ranks) {
  if (ranks == 1) return {0, kTokens};
  if (ranks == 2) return {0, 5, kTokens};
  return {kFirst.begin(), kFirst.end()};
}

RouterContext context_of(int64_t first, int64_t last) {
  RouterContext context;
  context.seed = 5;
  context.step = 3;
  context.first_row = first;
  std::vector<int32_t> offsets;
  for (int32_t s : kSequences)
    if (s >= first && s <= last) offsets.push_back(int32_t(s - first));
  context.sequence_offsets = tensor_of(offsets);
  return context;
}

/// What a step gives, put together from all ranks.
struct Outcome {
  Tensor y, dx, load;
  std::map<std::string, Tensor> gradients;
  std::map<std::string, double> losses;
  double dropped = 0, entropy = 0, loss = 0;
};

/// Writes the rows of `part` into `whole`, which is made when the first part comes.
void place(Tensor& whole, const Tensor& part, int64_t first, int64_t rows) {
  if (!whole) {
    whole = Tensor(part.shape().with(0, rows), part.dtype());
    whole.zero();
  }
  const int64_t width = part.shape().with(0, 1).size();
  for (int64_t i = 0; i < part.size(); ++i) whole.data<double>()[first * width + i] += part.data<double>()[i];
}

Outcome step(const LayerCase& c, int ranks, bool starve) {
  Outcome outcome;
  std::mutex mutex;
  const std::vector<int64_t> cut = cuts(ranks);
  run_on_threads(ranks, [&](Communicator& comm) {
    const int64_t first = cut[size_t(comm.rank())], last = cut[size_t(comm.rank()) + 1], tokens = last - first;
    MoeLayer layer = make_layer(c, comm);
    initialise(layer, 17);
    each_parameter(layer, [&](const std::string& name, Parameter& p) {  // biases start at zero: draw them as well
      if (name.ends_with("bias")) p.init = Init::normal, p.deviation = 0.5, initialise(p, name, 17);
    });
    each_state(layer, [&](const std::string&, Tensor& bias) {  // the experts of the last of four ranks get no token
      if (starve) bias.data<double>()[6] = bias.data<double>()[7] = -100;
    });
    Parameter x({tokens, kWidth}, Precision::f64());
    copy(x.value, slice(random({kTokens, kWidth}, 1), first, last));
    std::vector<Parameter*> all = parameters(layer);
    all.push_back(&x);
    Tape tape(all);
    RouterContext context = context_of(first, last);
    context.compete = c.compete;
    const LayerOutput out = layer(x, context);
    const double share = double(tokens) / kTokens;
    const Tensor loss = total(out, share, first, kTokens);
    tape.backward(loss);

    const std::lock_guard lock(mutex);
    place(outcome.y, out.y, first, kTokens);
    place(outcome.dx, x.grad, first, kTokens);
    place(outcome.load, out.statistics.load, 0, kExperts);
    outcome.loss += loss.item();
    for (const Loss& l : out.losses) outcome.losses[l.name] += share * l.value.item();
    const auto scalar = [&](const char* name) {
      return out.statistics.scalars().contains(name) ? out.statistics.scalars().at(name) : 0;
    };
    outcome.entropy += share * scalar("entropy");
    outcome.dropped += share * scalar("dropped");
    each_parameter(layer, [&](const std::string& name, Parameter& p) {
      const int64_t local = p.value.shape(0);
      if (p.group == Group::expert)
        place(outcome.gradients[name], p.grad, comm.rank() * local, local * ranks);
      else
        place(outcome.gradients[name], p.grad, 0, local);
    });
  });
  return outcome;
}

void check_equal(const Outcome& a, const Outcome& b) {
  CHECK(relative_error(a.y, b.y) < 1e-12);
  CHECK(relative_error(a.dx, b.dx) < 1e-12);
  CHECK(identical(a.load, b.load));
  CHECK(a.loss == doctest::Approx(b.loss).epsilon(1e-12));
  CHECK(a.entropy == doctest::Approx(b.entropy).epsilon(1e-12));
  CHECK(a.dropped == doctest::Approx(b.dropped).epsilon(1e-12));
  REQUIRE(a.losses.size() == b.losses.size());
  for (const auto& [name, value] : a.losses) CHECK(value == doctest::Approx(b.losses.at(name)).epsilon(1e-12));
  REQUIRE(a.gradients.size() == b.gradients.size());
  for (const auto& [name, gradient] : a.gradients) {
    CAPTURE(name);
    CHECK(relative_error(gradient, b.gradients.at(name)) < 1e-12);
  }
}

/// The sum of a number over the ranks.
double summed(double value, Communicator& comm) {
  const Tensor t = tensor_of<double>({value});
  comm.all_reduce(t);
  return t.item();
}

}  // namespace

TEST_CASE(
    "journey: two and four ranks equal one, outputs, losses, statistics and all gradients, for every setting and the "
    "toy") {
  for (const LayerCase& c : layer_cases(kExperts)) {
    CAPTURE(c.name);
    const Outcome one = step(c, 1, false);
    double largest = 0;
    for (const auto& [name, gradient] : one.gradients) largest = std::max(largest, dot(gradient, gradient));
    CHECK(largest > 0);
    for (const int ranks : {2, 4}) check_equal(step(c, ranks, false), one);
  }
}

TEST_CASE("journey: ranks whose experts get no row") {
  for (const LayerCase& c : layer_cases(kExperts)) {
    if (c.name != "defaults" && c.name != "everything") continue;
    CAPTURE(c.name);
    const Outcome one = step(c, 1, true);
    CHECK(one.load.data<double>()[6] + one.load.data<double>()[7] == 0);
    check_equal(step(c, 4, true), one);
  }
}

TEST_CASE(
    "journey: a token's row goes once to each other rank that has experts of its, own tokens lie before what came, and "
    "sums come home") {
  run_on_threads(4, [](Communicator& comm) {
    const int64_t tokens = comm.rank() == 2 ? 0 : 7 + comm.rank(), D = 3;
    const auto seed = uint64_t(comm.rank());
    const RandomPairs chosen = random_pairs(tokens, kExperts, 20 + seed, 4);
    Pairs pairs;
    pairs.expert = chosen.expert;
    pairs.token_offsets = chosen.token_offsets;
    const Plan plan = make_plan(pairs.expert, pairs.token_offsets, kExperts);
    const Journey journey(pairs, plan, kExperts, comm);
    const Tensor x = random({tokens, D}, 30 + seed), weight = random({pairs.expert.size()}, 40 + seed);

    const auto offset = pairs.token_offsets.data<const int32_t>(), expert = pairs.expert.data<const int32_t>();
    double visits = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      std::set<int32_t> ranks;
      for (int32_t i = offset[t]; i < offset[t + 1]; ++i) ranks.insert(expert[i] / 2);
      ranks.erase(comm.rank());
      visits += double(ranks.size());
    }
    const Tensor arrived = journey.out(x), arrived_weight = journey.out_weight(weight);
    check(identical(slice(arrived, 0, tokens), x), "the own tokens");
    check(summed(double(arrived.shape(0) - tokens), comm) == summed(visits, comm), "rows that came");
    check(summed(double(journey.plan().offsets.data<int32_t>().back()), comm) == summed(offset[tokens], comm),
          "pairs that arrived");
    check(journey.dropped() == 0, "dropped");

    // With experts that answer what they are asked, the layer is a weighted sum of copies.
    const Tensor rows = permute(arrived, journey.plan());
    const Tensor y = journey.home(combine(rows, arrived_weight, journey.plan()));
    check(tokens == 0 || relative_error(y, combine(permute(x, plan), weight, plan)) < 1e-14, "sums");
    check(identical(journey.rows_home(rows), permute(x, plan)), "rows, uncombined");
  });
}

TEST_CASE("journey: one rank moves nothing") {
  const auto self = make_self_communicator();
  const RandomPairs chosen = random_pairs(5, 4, 1);
  Pairs pairs;
  pairs.expert = chosen.expert;
  pairs.token_offsets = chosen.token_offsets;
  const Plan plan = make_plan(pairs.expert, pairs.token_offsets, 4);
  const Journey journey(pairs, plan, 4, *self);
  const Tensor x = random({5, 3}, 1);
  CHECK(journey.out(x).id() == x.id());
  CHECK(journey.home(x).id() == x.id());
  CHECK(journey.out_weight(x).id() == x.id());
  CHECK(journey.rows_home(x).id() == x.id());
  CHECK(journey.plan().pair_of_row.id() == plan.pair_of_row.id());
}

GPU_CASE("journey: on one rank nothing moves and nothing is read") {
  const auto self = make_self_communicator();
  const RandomPairs chosen = random_pairs(9, 4, 3, 5);
  Pairs pairs;
  pairs.expert = there(chosen.expert);
  pairs.token_offsets = there(chosen.token_offsets);
  const Tensor x = there(random({9, 6}, 1, 1, DType::f32)),
               weight = there(random(pairs.expert.shape(), 2, 1, DType::f32));
  const Crossings before = crossings();
  const Plan plan = make_plan(pairs.expert, pairs.token_offsets, 4);
  const Journey journey(pairs, plan, 4, *self);
  CHECK(journey.plan().pair_of_row.id() == plan.pair_of_row.id());
  CHECK(journey.out(x).id() == x.id());
  CHECK(journey.out_weight(weight).id() == weight.id());
  CHECK(journey.home(x).id() == x.id());
  CHECK(journey.rows_home(x).id() == x.id());
  CHECK(crossings().to_host == before.to_host);
  CHECK(crossings().to_device == before.to_device);
}
