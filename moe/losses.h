#pragma once
#include "moe/router.h"

// Auxiliary losses: scalars [1] f32 (f64) on the tape, on the device of what they are made of. A mean over scopes
// (scope_offsets [S+1] i32 on that device, scopes.h) weighs each scope by its tokens, so that micro-batches and ranks
// add up to the mean over the whole batch.

namespace agon {

/// The losses every strategy may have, by the names of a config.
struct LossOptions {
  double balance_coefficient = 0, z_coefficient = 0, entropy_coefficient = 0;
  std::string balance_scope =
      "batch";        // batch: a routing group | sequence | global: all ranks and micro-batches so far
  int64_t group = 0;  // sequences of a routing group; 0: the micro-batch

  void visit(OptionVisitor& v);
};

/// Those with a coefficient other than 0: "balance", "z", "entropy". probabilities [T, E]: rows that sum to 1, on the
/// tape. Collective over context.everyone for the balance loss of scope "global" in training.
Losses make_losses(const LossOptions& options, const Pairs& pairs, const Tensor& probabilities,
                   const RouterContext& context);

/// The balance loss of scope options.balance_scope, where what counts are the pairs (expert, token_offsets).
/// probabilities and collectivity as for make_losses.
Tensor balance_loss(const LossOptions& options, const Tensor& probabilities, const Tensor& expert,
                    const Tensor& token_offsets, const RouterContext& context);

/// E Σ_e f_e P_e, the mean over the scopes (Switch, arXiv 2101.03961): f the scope's share of the pairs per expert,
/// from counts [S, E] f64, a constant to the gradient; P the mean of probabilities [T, E] over the scope's tokens.
/// Uniform routing gives 1.
Tensor load_balance(const Tensor& probabilities, const Tensor& counts, const Tensor& scope_offsets);

/// The mean over tokens of logsumexp(logits)² (ST-MoE, arXiv 2202.08906): logits [T, E].
Tensor router_z(const Tensor& logits);

/// Σ_e m_e log m_e, the mean over the scopes, with m the mean of probabilities [T, E] over the scope's tokens: minus
/// the entropy, from -log E for uniform routing to 0.
Tensor negative_entropy(const Tensor& probabilities, const Tensor& scope_offsets);

// Kernels: loss and dy [1], share and mean [S, E] f64, logsumexp [T].

struct LoadBalance {
  /// E Σ_t Σ_e f[scope of t][e] p[t][e] / T, which is Σ_s T_s/T · E Σ_e f_se P_se.
  struct Forward {
    static void cpu(const Tensor& loss, const Tensor& probabilities, const Tensor& share, const Tensor& scope_offsets);
    static void cuda(const Tensor& loss, const Tensor& probabilities, const Tensor& share, const Tensor& scope_offsets);
  };
  struct Backward {
    static void cpu(const Tensor& dp, const Tensor& dy, const Tensor& share, const Tensor& scope_offsets);
    static void cuda(const Tensor& dp, const Tensor& dy, const Tensor& share, const Tensor& scope_offsets);
  };
};

struct RouterZ {
  struct Forward {
    static void cpu(const Tensor& loss, const Tensor& logsumexp, const Tensor& logits);
    static void cuda(const Tensor& loss, const Tensor& logsumexp, const Tensor& logits);
  };
  struct Backward {
    static void cpu(const Tensor& dz, const Tensor& dy, const Tensor& logits, const Tensor& logsumexp);
    static void cuda(const Tensor& dz, const Tensor& dy, const Tensor& logits, const Tensor& logsumexp);
  };
};

struct NegativeEntropy {
  struct Forward {
    static void cpu(const Tensor& loss, const Tensor& mean, const Tensor& probabilities, const Tensor& scope_offsets);
    static void cuda(const Tensor& loss, const Tensor& mean, const Tensor& probabilities, const Tensor& scope_offsets);
  };
  struct Backward {
    static void cpu(const Tensor& dp, const Tensor& dy, const Tensor& mean, const Tensor& scope_offsets);
    static void cuda(const Tensor& dp, const Tensor& dy, const Tensor& mean, const Tensor& scope_offsets);
  };
};

}  // namespace agon
