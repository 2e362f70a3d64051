#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "distributed/placement.h"
#include "tests/moe/layers.h"

// One step of a layer on any number of ranks, put together again.

namespace agon::testing {

// Sixteen tokens in four sequences, unevenly spread over four ranks: one has none.
inline const std::vector<int32_t> kFirst{0, 5, 5, 14, 16}, kSequences{0, 5, 11, 14, 16};
inline constexpr int64_t kTokens = 16, kExperts = 8;

/// The first token of each of `ranks` ranks, and the end.
inline std::vector<int64_t> cuts(int ranks) {
  if (ranks == 1) return {0, kTokens};
  if (ranks == 2) return {0, 5, kTokens};
  return {kFirst.begin(), kFirst.end()};
}

inline RouterContext context_of(int64_t first, int64_t last) {
  RouterContext context;
  context.seed = 5;
  context.step = 3;
  context.first_row = first;
  context.most_tokens = kTokens;
  std::vector<int32_t> offsets;
  for (int32_t s : kSequences)
    if (s >= first && s <= last) offsets.push_back(int32_t(s - first));
  context.sequence_offsets = tensor_of(offsets);
  return context;
}

/// How a step is run.
struct Layout {
  int ranks = 1;
  int spread = 0;  // ranks the experts are spread over; 0: all
  ExchangeOptions exchange = {};
  Precision precision = Precision::f64();
  bool starve = false;  // the experts of the last of four ranks get no token
};

/// What a step gives, put together from all ranks, in f64.
struct Outcome {
  Tensor y, dx, load;
  std::map<std::string, Tensor> gradients;
  std::map<std::string, double> losses;
  double dropped = 0, entropy = 0, loss = 0, exchange_dropped = 0;
};

/// Adds `part` to the rows of `whole`, which is made when the first part comes.
inline void place(Tensor& whole, const Tensor& part, int64_t first, int64_t rows) {
  const Tensor wide = converted(part, DType::f64);
  if (!whole) {
    whole = Tensor(part.shape().with(0, rows), DType::f64);
    whole.zero();
  }
  const int64_t width = part.shape().with(0, 1).size();
  for (int64_t i = 0; i < part.size(); ++i) whole.data<double>()[first * width + i] += wide.data<double>()[i];
}

inline Outcome step(const LayerCase& c, const Layout& layout) {
  Outcome outcome;
  const std::vector<int64_t> cut = cuts(layout.ranks);
  run_on_threads(layout.ranks, [&](Communicator& comm) {
    const int spread = layout.spread ? layout.spread : layout.ranks;
    const ExpertRanks of_experts = make_expert_ranks(comm, spread);
    const int64_t first = cut[size_t(comm.rank())], last = cut[size_t(comm.rank()) + 1], tokens = last - first;
    MoeLayer layer(c.options, *c.router, kWidth, layout.precision, {0.8, 0.6, 0.6}, *of_experts.group, layout.exchange);
    initialise(layer, 17);
    each_parameter(layer, [&](const std::string& name, Parameter& p) {  // biases start at zero: draw them as well
      if (name.ends_with("bias")) p.init = Init::normal, p.deviation = 0.5, initialise(p, name, 17);
    });
    each_state(layer, [&](const std::string&, Tensor& bias) {
      if (layout.starve) bias.data<double>()[6] = bias.data<double>()[7] = -100;
    });
    Parameter x({tokens, kWidth}, layout.precision);
    copy(x.value, slice(random({kTokens, kWidth}, 1), first, last));
    std::vector<Parameter*> all = parameters(layer);
    all.push_back(&x);
    Tape tape(all);
    RouterContext context = context_of(first, last);
    context.compete = c.compete;
    context.everyone = &comm;
    const LayerOutput out = layer(x, context);
    const double share = double(tokens) / kTokens;
    const Tensor loss = total(out, share, first, kTokens);
    tape.backward(loss);

    for (int turn = 0; turn < comm.size(); ++turn) {  // in rank order, for the bits of sums
      comm.barrier();
      if (turn != comm.rank()) continue;
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
      outcome.exchange_dropped += share * scalar("exchange_dropped");
      each_parameter(layer, [&](const std::string& name, Parameter& p) {
        const int64_t local = p.value.shape(0);
        if (p.group == Group::expert)
          place(outcome.gradients[name], p.grad, of_experts.group->rank() * local, local * spread);
        else
          place(outcome.gradients[name], p.grad, 0, local);
      });
    }
  });
  return outcome;
}

inline void check_equal(const Outcome& a, const Outcome& b, double tolerance = 1e-12) {
  CHECK(relative_error(a.y, b.y) < tolerance);
  CHECK(relative_error(a.dx, b.dx) < tolerance);
  CHECK(identical(a.load, b.load));
  CHECK(a.loss == doctest::Approx(b.loss).epsilon(tolerance));
  CHECK(a.entropy == doctest::Approx(b.entropy).epsilon(tolerance));
  CHECK(a.dropped == doctest::Approx(b.dropped).epsilon(tolerance));
  REQUIRE(a.losses.size() == b.losses.size());
  for (const auto& [name, value] : a.losses) CHECK(value == doctest::Approx(b.losses.at(name)).epsilon(tolerance));
  REQUIRE(a.gradients.size() == b.gradients.size());
  for (const auto& [name, gradient] : a.gradients) {
    CAPTURE(name);
    CHECK(relative_error(gradient, b.gradients.at(name)) < tolerance);
  }
}

inline void check_identical(const Outcome& a, const Outcome& b) {
  CHECK(identical(a.y, b.y));
  CHECK(identical(a.dx, b.dx));
  CHECK(identical(a.load, b.load));
  CHECK(a.loss == b.loss);
  CHECK(a.losses == b.losses);
  REQUIRE(a.gradients.size() == b.gradients.size());
  for (const auto& [name, gradient] : a.gradients) {
    CAPTURE(name);
    CHECK(identical(gradient, b.gradients.at(name)));
  }
}

}  // namespace agon::testing
