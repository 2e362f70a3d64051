#pragma once
#include <functional>
#include <span>
#include <vector>

#include "apps/model.h"
#include "apps/step.h"

namespace agon {

struct SamplingOptions {
  int64_t tokens = 200;
  double temperature = 0.8;  // 0: always the most likely
  int64_t top_k = 0;         // only the k most likely; 0: all
  double top_p = 1;          // only the most likely that together have this probability
  uint64_t seed = 1;
};

/// Draws an id from logits [V] as the options say. `draw` is uniform in [0, 1).
int32_t sample(std::span<const float> logits, const SamplingOptions& options, double draw);

/// Continues `prompt` (at least one id) one token at a time, calling `emit(id)` for each; stops at `end` (negative:
/// never) or when emit returns false. Each token costs O(context). When the context (model.sequence) is full, the older
/// half of it is forgotten and the rest read again. The n-th draw depends on (seed, n) alone.
void generate(LanguageModel& model, std::vector<int32_t> prompt, const SamplingOptions& options, int32_t end,
              const std::function<bool(int32_t)>& emit);

}  // namespace agon
