#pragma once
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "apps/config.h"
#include "autograd/module.h"
#include "moe/layer.h"
#include "ops/normed.h"

// Letters: T tokens of the micro-batch, B sequences, D width, H heads, G key heads, d head width, V vocabulary.

namespace agon {

/// The tokens of some sequences, one after the other, and where they stand: on the model's device, but for `offsets`.
struct Sequences {
  Tensor token;               // [T] i32
  Tensor position;            // [T] i32, from 0 in each sequence
  Tensor offsets;             // [B+1] i32 on the CPU: sizes depend on it
  int64_t first_row = 0;      // number of the first token, counted over the run: what keyed random draws count from
  Tensor offsets_there = {};  // `offsets` on the model's device; empty: the model puts them there, which on a GPU waits
};

/// Keys and values of the tokens seen so far, for one sequence: generation costs O(context) a token.
struct KeyValueCache {
  std::vector<Tensor> keys, values;  // per block [capacity, G, d]
  int64_t length = 0, capacity = 0;
};

/// RMS norm or layer norm.
struct Norm {
  bool layer = false;
  double epsilon = 1e-5;
  Parameter gain, bias;  // [n]; bias only for layer norms with bias

  Norm() = default;
  Norm(int64_t n, const ModelOptions& options, Precision precision);
  Tensor operator()(const Tensor& x) const;
  /// Of x + residual, which is given too.
  Normed operator()(const Tensor& x, Tensor residual) const;
  void visit(auto&& v) { v("gain", gain), v("bias", bias); }
};

/// y = x wᵀ + b.
struct Projection {
  Parameter weight, bias;  // [O, I], [O]

  Projection() = default;
  Projection(int64_t outputs, int64_t inputs, bool with_bias, Precision precision, double deviation);
  Tensor operator()(const Tensor& x) const;
  void visit(auto&& v) { v("weight", weight), v("bias", bias); }
};

/// Causal self-attention with grouped queries.
struct SelfAttention {
  int64_t heads, kv_heads, head_width;
  bool rotary;
  double theta;
  Projection query, key, value, out;
  std::optional<Norm> query_norm, key_norm;  // over each head's d numbers (qk-norm, as in Qwen3)

  SelfAttention(const ModelOptions& options, Precision precision);
  /// x [T, D] -> [T, D]. With a cache, x are the next tokens of its one sequence.
  Tensor operator()(const Tensor& x, const Sequences& at, KeyValueCache* cache, int block) const;
  void visit(auto&& v) {
    v("query", query), v("key", key), v("value", value), v("out", out);
    v("query_norm", query_norm), v("key_norm", key_norm);
  }
};

/// One pre-norm decoder block: attention, then a dense feed-forward or experts.
struct Block {
  Norm attention_norm;
  SelfAttention attention;
  Norm feed_forward_norm;
  std::unique_ptr<FeedForward> dense;
  std::unique_ptr<MoeLayer> experts;

  Block(const Config& config, int64_t index, Communicator& comm);
  void visit(auto&& v) {
    v("attention_norm", attention_norm), v("attention", attention);
    v("feed_forward_norm", feed_forward_norm), v("feed_forward", dense), v("feed_forward", experts);
  }
};

/// What one pass through the blocks gives besides the vectors.
struct Passed {
  Tensor hidden;                       // [T, D] after the last norm
  std::vector<Losses> losses;          // per block; empty for dense ones
  std::vector<Statistics> statistics;  // likewise
};

/// A function that looks at the output of each block as it is made.
using Watcher = std::function<void(int block, const char* what, const Tensor& x)>;

/// A decoder-only language model: embedding, blocks, norm, head.
class LanguageModel {
 public:
  LanguageModel(const Config& config, int64_t vocabulary, Communicator& comm);

  /// The tokens through all blocks. `context` carries step, mode and seed; `cache` is for generation; `counts_so_far`
  /// is RouterContext's, one per block (empty for all: the first micro-batch).
  Passed operator()(const Sequences& sequences, const RouterContext& context, KeyValueCache* cache = nullptr,
                    const Watcher& watch = {}, std::span<const Tensor> counts_so_far = {});
  /// Logits of the last token of each row of `hidden` [n, D] -> [n, V].
  Tensor logits(const Tensor& hidden) const;
  Device device() const { return embedding_.value.device(); }
  const Parameter& head() const { return head_ ? head_ : embedding_; }

  KeyValueCache make_cache(int64_t capacity) const;
  int64_t vocabulary() const { return embedding_.value.shape(0); }
  std::deque<Block>& blocks() { return blocks_; }
  const Config& config() const { return config_; }

  void visit(auto&& v) {
    v("embedding", embedding_), v("positions", positions_);
    v("blocks", blocks_), v("norm", norm_), v("head", head_);
  }

 private:
  /// Through which block i reads the stream; behind the last block, the head.
  const Norm& norm_before(size_t i) const;
  Tensor dropped(const Tensor& x, const Sequences& at, const RouterContext& context, uint64_t site) const;

  Config config_;
  Parameter embedding_;  // [V, D]
  Parameter positions_;  // [sequence, D], learned positions only
  std::deque<Block> blocks_;
  Norm norm_;
  Parameter head_;  // [V, D]; empty when tied
};

}  // namespace agon
