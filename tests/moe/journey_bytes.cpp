#include <doctest/doctest.h>

#include <map>
#include <mutex>
#include <set>

#include "moe/journey.h"
#include "tests/moe/layers.h"

using namespace agon;
using namespace agon::testing;

// What ranks count as sent and received, beside the least that can be, reckoned from the routing alone.

namespace {

constexpr int64_t kExperts = 8;
// Whole sequences on four ranks, one of which has none.
const std::vector<int64_t> kFirst{0, 10, 10, 28, 32};
const std::vector<int32_t> kSequences{0, 10, 22, 28, 32};

RouterContext context_of(const LayerCase& c, int64_t first, int64_t last) {
  RouterContext context;
  context.seed = 5;
  context.first_row = first;
  context.compete = c.compete;
  std::vector<int32_t> offsets;
  for (int32_t s : kSequences)
    if (s >= first && s <= last) offsets.push_back(int32_t(s - first));
  context.sequence_offsets = tensor_of(offsets);
  return context;
}

/// Rows and pairs one rank has for another.
struct Flow {
  int64_t rows = 0, pairs = 0;
};
using Flows = std::map<std::pair<int, int>, Flow>;  // by (from, to), from != to

void add_flows(Flows& flows, const Pairs& pairs, int rank, int ranks) {
  const auto offset = pairs.token_offsets.data<const int32_t>(), expert = pairs.expert.data<const int32_t>();
  for (size_t t = 0; t + 1 < offset.size(); ++t) {
    std::set<int> visited;
    for (auto i = size_t(offset[t]); i < size_t(offset[t + 1]); ++i) {
      const int to = int(expert[i] / (kExperts / ranks));
      if (to == rank) continue;
      Flow& flow = flows[{rank, to}];
      ++flow.pairs;
      flow.rows += visited.insert(to).second;
    }
  }
}

struct Bytes {
  int64_t sent = 0, received = 0;
  bool operator==(const Bytes&) const = default;
};

std::map<std::string, Bytes> bytes_of(const std::map<Collective, Traffic>& traffic) {
  std::map<std::string, Bytes> found;
  for (const auto& [kind, t] : traffic)
    if (t.sent || t.received) found[text(kind)] = {t.sent, t.received};
  return found;
}

/// One step of a layer on threads: what each rank counted, and the routing's flows.
struct Counted {
  std::vector<std::map<std::string, Bytes>> forward, all;  // by rank
  Flows flows;
  bool weighs_rows = false;
};

Counted count(const LayerCase& c, int ranks, const ExchangeOptions& options, Precision precision) {
  Counted counted;
  counted.forward.resize(size_t(ranks));
  counted.all.resize(size_t(ranks));
  std::mutex mutex;
  run_on_threads(ranks, [&](Communicator& comm) {
    const auto everyone = comm.split(0, comm.rank());  // what routers exchange is not the journey's
    const auto group = comm.split(0, comm.rank());
    const int each = 4 / ranks;
    const int64_t first = kFirst[size_t(comm.rank() * each)], last = kFirst[size_t((comm.rank() + 1) * each)];
    MoeLayer layer(c.options, *c.router, kWidth, precision, {0.8, 0.6, 0.6}, *group, options);
    initialise(layer, 17);
    Parameter x({last - first, kWidth}, precision);
    copy(x.value, slice(random({32, kWidth}, 1), first, last));
    std::vector<Parameter*> all = parameters(layer);
    all.push_back(&x);
    Tape tape(all);
    RouterContext context = context_of(c, first, last);
    context.everyone = everyone.get();
    Decision decision;
    const LayerOutput out = layer(x, context, &decision);
    const auto forward = bytes_of(group->traffic());
    tape.backward(total(out, 1, first, 32));
    const std::lock_guard lock(mutex);
    counted.forward[size_t(comm.rank())] = forward;
    counted.all[size_t(comm.rank())] = bytes_of(group->traffic());
    counted.weighs_rows = layer.router().weighs_rows(context);
    add_flows(counted.flows, decision.pairs, comm.rank(), ranks);
  });
  return counted;
}

/// Sizes in bytes: of a row on its way, of a weight or score.
struct Sizes {
  int64_t row, number;
};

/// The least of the journey, of what rank `rank` sends to and receives from the others.
Bytes least(const Counted& c, int rank, int ranks, Sizes size, bool backward) {
  Bytes bytes;
  for (int other = 0; other < ranks; ++other) {
    if (other == rank) continue;
    const auto flow = [&](int from, int to) { return c.flows.contains({from, to}) ? c.flows.at({from, to}) : Flow(); };
    const Flow out = flow(rank, other), in = flow(other, rank);
    // Where the token is, and where its experts are: what the one sends forward the other sends backward.
    const auto from_token = [&](const Flow& f) {
      const int64_t forward = 4 + 4 * f.pairs + f.rows * size.row + (c.weighs_rows ? 0 : size.number * f.pairs);
      const int64_t slopes = c.weighs_rows ? f.pairs * size.row : f.rows * size.row;
      return forward + (backward ? slopes : 0);
    };
    const auto from_experts = [&](const Flow& f) {
      const int64_t forward = c.weighs_rows ? f.pairs * size.row : f.rows * size.row;
      const int64_t slopes = f.rows * size.row + (c.weighs_rows ? 0 : size.number * f.pairs);
      return forward + (backward ? slopes : 0);
    };
    bytes.sent += from_token(out) + from_experts(in);
    bytes.received += from_token(in) + from_experts(out);
  }
  return bytes;
}

int64_t tokens_of(int rank, int ranks) {
  const int each = 4 / ranks;
  return kFirst[size_t((rank + 1) * each)] - kFirst[size_t(rank * each)];
}

/// What a competition adds: every token's row to every other rank, each of their experts' scores back; where losers
/// have gradients, the rows again, the scores' gradients, and the rows' gradients.
std::map<std::string, Bytes> least_of_contest(int rank, int ranks, Sizes size, bool losers) {
  Bytes rows, numbers;
  for (int other = 0; other < ranks; ++other) {
    if (other == rank) continue;
    const int64_t mine = tokens_of(rank, ranks), theirs = tokens_of(other, ranks),
                  scores = kExperts / ranks * size.number, times = losers ? 2 : 1;
    rows.sent += 4 + times * mine * size.row;
    rows.received += 4 + times * theirs * size.row;
    numbers.sent += theirs * scores + (losers ? mine * scores + theirs * size.row : 0);
    numbers.received += mine * scores + (losers ? theirs * scores + mine * size.row : 0);
  }
  return {{"all_gather", rows}, {"all_to_all", numbers}};
}

/// Runs a case and compares all that was counted with the least.
void check_bytes(const LayerCase& c, int ranks, const ExchangeOptions& options, Precision precision) {
  CAPTURE(c.name);
  CAPTURE(ranks);
  const bool losers = c.name == "competing, all options";
  const Counted counted = count(c, ranks, options, precision);
  const bool rounded = options.bf16 && precision.compute == DType::f32;
  const Sizes size{kWidth * (rounded ? 2 : size_of(precision.compute)), size_of(precision.master)};
  int64_t crossed = 0;
  for (int r = 0; r < ranks; ++r) {
    CAPTURE(r);
    std::map<std::string, Bytes> forward, all;
    if (c.compete) {
      forward = least_of_contest(r, ranks, size, false);
      all = least_of_contest(r, ranks, size, losers);
    }
    const Bytes of_journey = least(counted, r, ranks, size, false),
                with_backward = least(counted, r, ranks, size, true);
    forward["all_to_all"].sent += of_journey.sent;
    forward["all_to_all"].received += of_journey.received;
    all["all_to_all"].sent += with_backward.sent;
    all["all_to_all"].received += with_backward.received;
    CHECK(counted.forward[size_t(r)] == forward);
    CHECK(counted.all[size_t(r)] == all);
    crossed += all["all_to_all"].sent;
  }
  CHECK(crossed > 8 * ranks * (ranks - 1));
}

}  // namespace

TEST_CASE("journey: what crosses is the least there is to say, forward and backward, in every strategy and precision") {
  for (const LayerCase& c : layer_cases(kExperts))
    for (const int ranks : {2, 4})
      for (const Precision precision : {Precision::f64(), Precision::fp32(), Precision::bf16()})
        if (c.name != "toy" || precision.compute == DType::f64) check_bytes(c, ranks, {}, precision);
}

TEST_CASE("journey: rows that travel as bf16 take half the bytes, numbers as many") {
  for (const LayerCase& c : layer_cases(kExperts))
    for (const Precision precision : {Precision::f64(), Precision::fp32()})
      if (c.name != "toy" || precision.compute == DType::f64) check_bytes(c, 2, {.bf16 = true}, precision);
}
