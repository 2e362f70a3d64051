#pragma once
#include "moe/scopes.h"

// Scores that see a pair from both sides (USMoE, arXiv 2503.22996; ROUTING.md section 4).

namespace agon {

/// How an expert sees a token.
enum class ExpertScore { sigmoid, softmax };

struct UnifiedOptions {
  double alpha = 0.5;
  std::string expert_score = "sigmoid";

  void visit(OptionVisitor& v);
  ExpertScore view() const { return expert_score == "softmax" ? ExpertScore::softmax : ExpertScore::sigmoid; }
};

/// (1 - alpha) softmax(z) + alpha g: logits z [T, E] f32 (f64) -> [T, E]. sigmoid: g = 2 σ(z) / E, of a token alone.
/// softmax: over the tokens of each scope, times their number over E; `scopes` is read for it only.
Tensor unified_scores(const Tensor& logits, double alpha, ExpertScore view, const Scopes& scopes);

/// As options say. UserError in causal evaluation where the score would look at later tokens.
Tensor unified_scores(const Tensor& logits, const UnifiedOptions& options, const std::string& scope, int64_t group,
                      const RouterContext& context);

/// Softmax over the tokens of each scope, per expert: z [T, E] f32 (f64) -> [T, E].
Tensor softmax_over_tokens(const Tensor& z, const Scopes& scopes);

}  // namespace agon
