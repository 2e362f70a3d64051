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

struct SoftmaxOverTokens {
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& z, const Scopes& scopes);
    static void cuda(const Tensor& y, const Tensor& z, const Scopes& scopes);
  };
  /// dz = y (dy - Σ over the scope's tokens of y dy).
  struct Backward {
    static void cpu(const Tensor& dz, const Tensor& dy, const Tensor& y, const Scopes& scopes);
    static void cuda(const Tensor& dz, const Tensor& dy, const Tensor& y, const Scopes& scopes);
  };
};

struct TokensOverExperts {
  /// share [T]: the number of tokens in each token's scope, over `experts`.
  static void cpu(const Tensor& share, const Scopes& scopes, int64_t experts);
  static void cuda(const Tensor& share, const Scopes& scopes, int64_t experts);
};

}  // namespace agon
