#include "moe/losses.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/tape.h"
#include "core/copy.h"
#include "moe/counts.h"
#include "moe/ordered_sum.h"
#include "moe/selection.h"
#include "ops/cpu/rows.h"

namespace agon {

namespace {

constexpr int64_t kTokens = 128;  // of a task

int64_t scopes_of(const Tensor& scope_offsets) { return scope_offsets.size() - 1; }

/// Calls f(s, begin, end) for the parts of the tokens [begin, end) that lie in one scope each.
template <class F>
void each_scope(const Tensor& scope_offsets, int64_t begin, int64_t end, F&& f) {
  const auto offset = scope_offsets.data<const int32_t>();
  int64_t s = std::ranges::upper_bound(offset, begin) - offset.begin() - 1;
  for (; begin < end; ++s) {
    const int64_t stop = std::min<int64_t>(end, offset[size_t(s) + 1]);
    if (begin < stop) f(s, begin, stop);
    begin = std::max(begin, stop);
  }
}

}  // namespace

void LoadBalance::Forward::cpu(const Tensor& loss, const Tensor& probabilities, const Tensor& share,
                               const Tensor& scope_offsets) {
  const int64_t T = probabilities.shape(0), E = probabilities.shape(1);
  const double* const f = share.data<const double>().data();
  double value = 0;
  visit_accumulator(probabilities.dtype(), [&]<class P>() {
    const P* const p = probabilities.data<const P>().data();
    value = ordered_sum(T, [&](int64_t begin, int64_t end) {
      double sum = 0;
      each_scope(scope_offsets, begin, end, [&](int64_t s, int64_t first, int64_t last) {
        for (int64_t t = first; t < last; ++t)
          for (int64_t e = 0; e < E; ++e) sum += f[s * E + e] * double(p[t * E + e]);
      });
      return sum;
    });
  });
  value *= T > 0 ? double(E) / double(T) : 0;
  fill(loss, value);
}

void LoadBalance::Backward::cpu(const Tensor& dp, const Tensor& dy, const Tensor& share, const Tensor& scope_offsets) {
  const int64_t T = dp.shape(0), E = dp.shape(1);
  const double slope = dy.item();
  const double* const f = share.data<const double>().data();
  visit_accumulator(dp.dtype(), [&]<class P>() {
    P* const out = dp.data<P>().data();
    parallel_ranges(T, kTokens, [&](int64_t begin, int64_t end) {
      each_scope(scope_offsets, begin, end, [&](int64_t s, int64_t first, int64_t last) {
        for (int64_t t = first; t < last; ++t)
          for (int64_t e = 0; e < E; ++e) out[t * E + e] = P(slope * double(E) / double(T) * f[s * E + e]);
      });
    });
  });
}

void RouterZ::Forward::cpu(const Tensor& loss, const Tensor& logsumexp, const Tensor& logits) {
  const int64_t T = logits.shape(0), E = logits.shape(1);
  double mean = 0;
  visit_accumulator(logits.dtype(), [&]<class Z>() {
    const Z* const z = logits.data<const Z>().data();
    const cpu::RowKernels<Z>& row = cpu::row_kernels<Z>();
    mean = ordered_sum(T, [&](int64_t begin, int64_t end) {
      double sum = 0;
      for (int64_t t = begin; t < end; ++t) {
        const Z largest = row.max(-std::numeric_limits<Z>::infinity(), z + t * E, Z(1), E);
        const Z value = largest + std::log(row.exp_sum(z + t * E, largest, E));
        logsumexp.data<Z>()[size_t(t)] = value;
        sum += double(value) * double(value);
      }
      return sum;
    });
  });
  mean /= double(std::max<int64_t>(T, 1));
  fill(loss, mean);
}

void RouterZ::Backward::cpu(const Tensor& dz, const Tensor& dy, const Tensor& logits, const Tensor& logsumexp) {
  const int64_t T = logits.shape(0), E = logits.shape(1);
  const double slope = dy.item();
  visit_accumulator(logits.dtype(), [&]<class Z>() {
    const Z* const z = logits.data<const Z>().data();
    Z* const out = dz.data<Z>().data();
    parallel_ranges(T, kTokens, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const Z lse = logsumexp.data<const Z>()[size_t(t)];
        cpu::row_kernels<Z>().exp_scaled(out + t * E, z + t * E, lse, Z(slope * 2 * double(lse) / double(T)), Z(1), E);
      }
    });
  });
}

void NegativeEntropy::Forward::cpu(const Tensor& loss, const Tensor& mean, const Tensor& probabilities,
                                   const Tensor& scope_offsets) {
  const int64_t T = probabilities.shape(0), E = probabilities.shape(1), S = scopes_of(scope_offsets);
  const auto offset = scope_offsets.data<const int32_t>();
  double* const m = mean.data<double>().data();
  constexpr int64_t kExperts = 16;  // columns of a task: whole cache lines
  const int64_t pieces = (E + kExperts - 1) / kExperts;
  visit_accumulator(probabilities.dtype(), [&]<class P>() {
    const P* const p = probabilities.data<const P>().data();
    parallel_tasks(S * pieces, [&](int64_t task) {
      const int64_t s = task / pieces, first = task % pieces * kExperts, last = std::min(E, first + kExperts);
      const int64_t begin = offset[size_t(s)], end = offset[size_t(s) + 1];
      std::fill(m + s * E + first, m + s * E + last, 0.0);
      for (int64_t t = begin; t < end; ++t)
        for (int64_t e = first; e < last; ++e) m[s * E + e] += double(p[t * E + e]);
      for (int64_t e = first; e < last; ++e) m[s * E + e] /= double(std::max<int64_t>(end - begin, 1));
    });
  });
  double value = 0;
  for (int64_t s = 0; s < S; ++s) {
    double sum = 0;
    for (int64_t e = 0; e < E; ++e) sum += m[s * E + e] > 0 ? m[s * E + e] * std::log(m[s * E + e]) : 0;
    value += sum * double(offset[size_t(s) + 1] - offset[size_t(s)]) / double(std::max<int64_t>(T, 1));
  }
  fill(loss, value);
}

void NegativeEntropy::Backward::cpu(const Tensor& dp, const Tensor& dy, const Tensor& mean,
                                    const Tensor& scope_offsets) {
  const int64_t T = dp.shape(0), E = dp.shape(1);
  const double slope = dy.item();
  const double* const m = mean.data<const double>().data();
  visit_accumulator(dp.dtype(), [&]<class P>() {
    P* const out = dp.data<P>().data();
    parallel_ranges(T, kTokens, [&](int64_t begin, int64_t end) {
      each_scope(scope_offsets, begin, end, [&](int64_t s, int64_t first, int64_t last) {
        for (int64_t e = 0; e < E; ++e) {
          const double each =
              slope / double(T) * (std::log(std::max(m[s * E + e], std::numeric_limits<double>::min())) + 1);
          for (int64_t t = first; t < last; ++t) out[t * E + e] = P(each);
        }
      });
    });
  });
}

namespace {

/// [1, E]: all pairs of the step so far, on all ranks. Evaluation has no steps, and its ranks need not run in step.
Tensor global_counts(const Tensor& expert, const Tensor& token_offsets, int64_t experts, const Tensor& everything,
                     const RouterContext& context) {
  const Tensor counts = count_experts(expert, token_offsets, everything, experts);
  if (context.mode != Mode::train) return counts;
  Communicator* const everyone = context.everyone ? context.everyone : context.comm;
  if (everyone) everyone->all_reduce(counts);
  if (context.counts_so_far) add_counts(counts, context.counts_so_far);
  return counts;
}

}  // namespace

void LossOptions::visit(OptionVisitor& v) {
  v("group", group, Range::at_least(0),
    "consecutive sequences of a routing group; 0: the micro-batch of a rank, whatever the layout");
  v("balance_coefficient", balance_coefficient, Range::at_least(0), "of the load balance loss; 0: none");
  v("balance_scope", balance_scope, {"batch", "sequence", "global"},
    "what the balance loss balances: a routing group, each sequence, or all ranks and micro-batches of the step so "
    "far");
  v("z_coefficient", z_coefficient, Range::at_least(0), "of the mean of logsumexp(logits)²; 0: none");
  v("entropy_coefficient", entropy_coefficient, Range::at_least(0),
    "of minus the entropy of the mean probabilities; 0: none");
}

Losses make_losses(const LossOptions& options, const Pairs& pairs, const Tensor& probabilities,
                   const RouterContext& context) {
  const int64_t T = pairs.logits.shape(0);
  Losses losses;
  if (options.balance_coefficient != 0)
    losses.push_back({"balance", balance_loss(options, probabilities, pairs.chosen, pairs.chosen_offsets, context),
                      options.balance_coefficient});
  if (options.z_coefficient != 0) losses.push_back({"z", router_z(pairs.logits), options.z_coefficient});
  if (options.entropy_coefficient != 0)
    losses.push_back({"entropy",
                      negative_entropy(probabilities, scope_offsets(context, T, options.group, probabilities.device())),
                      options.entropy_coefficient});
  return losses;
}

Tensor balance_loss(const LossOptions& options, const Tensor& probabilities, const Tensor& expert,
                    const Tensor& token_offsets, const RouterContext& context) {
  const int64_t T = probabilities.shape(0), E = probabilities.shape(1);
  const bool global = options.balance_scope == "global", sequence = options.balance_scope == "sequence";
  const Tensor scopes = scope_offsets(context, T, global ? 0 : sequence ? 1 : options.group, probabilities.device());
  const Tensor counts = global ? global_counts(expert, token_offsets, E, scopes, context)
                               : count_experts(expert, token_offsets, scopes, E);
  return load_balance(probabilities, counts, scopes);
}

Tensor load_balance(const Tensor& probabilities, const Tensor& counts, const Tensor& scopes) {
  check(counts.shape() == Shape{scopes_of(scopes), probabilities.shape(1)}, "load_balance: counts ", counts.shape(),
        ", expected ", Shape{scopes_of(scopes), probabilities.shape(1)});
  const Tensor share = shares_of(counts);
  Tensor loss({1}, probabilities.dtype(), probabilities.device());
  run<LoadBalance::Forward>(probabilities.device(), loss, probabilities, share, scopes);
  return record("load_balance", {&probabilities}, loss,
                [p = probabilities.without_data(), share, scopes](Gradients& g, const Tensor& dy) {
                  Tensor dp(p.shape(), p.dtype(), p.device());
                  run<LoadBalance::Backward>(p.device(), dp, dy, share, scopes);
                  g.add(p, dp);
                });
}

Tensor router_z(const Tensor& logits) {
  const Tensor logsumexp({logits.shape(0)}, logits.dtype(), logits.device());
  Tensor loss({1}, logits.dtype(), logits.device());
  run<RouterZ::Forward>(logits.device(), loss, logsumexp, logits);
  return record("router_z", {&logits}, loss, [logits, logsumexp](Gradients& g, const Tensor& dy) {
    Tensor dz(logits.shape(), logits.dtype(), logits.device());
    run<RouterZ::Backward>(logits.device(), dz, dy, logits, logsumexp);
    g.add(logits, dz);
  });
}

Tensor negative_entropy(const Tensor& probabilities, const Tensor& scopes) {
  const Tensor mean({scopes_of(scopes), probabilities.shape(1)}, DType::f64, probabilities.device());
  Tensor loss({1}, probabilities.dtype(), probabilities.device());
  run<NegativeEntropy::Forward>(probabilities.device(), loss, mean, probabilities, scopes);
  return record("negative_entropy", {&probabilities}, loss,
                [p = probabilities.without_data(), mean, scopes](Gradients& g, const Tensor& dy) {
                  Tensor dp(p.shape(), p.dtype(), p.device());
                  run<NegativeEntropy::Backward>(p.device(), dp, dy, mean, scopes);
                  g.add(p, dp);
                });
}

}  // namespace agon
