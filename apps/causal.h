#pragma once
#include <map>
#include <optional>
#include <string>

#include "apps/calibration.h"
#include "apps/training_state.h"

namespace agon {

/// Layers by index of the block, with their strategies.
using Layers = std::map<int64_t, std::string>;

/// Those that choose between tokens, and so need thresholds to run causally.
Layers thresholded_layers(LanguageModel& model);
/// Those that see later tokens even with thresholds (RouterOptions::causal): nothing makes them causal.
Layers noncausal_layers(const Config& config);

/// A calibration of the model with the text at `where`: a file, a folder, builtin:domains. UserError where nothing
/// makes the model causal, or needs to.
Calibration calibrate_with(const LoadedModel& loaded, const std::string& where, Step& arena);

/// Sequences that go through the model together where no gradient is wanted.
inline int64_t evaluation_batch(const Config& c) { return c.train.micro_batch ? c.train.micro_batch : c.train.batch; }

/// Where each layer that needs thresholds has them from, in words: "learned", "CKPT/calibration.safetensors (...)".
using ThresholdSources = std::map<int64_t, std::string>;

/// Gives every layer that chooses between tokens its thresholds: those of `made` where there is one, else what was
/// learned in training, else those of the calibration beside the checkpoint's manifest where it fits. UserError naming
/// the layers that cannot run causally, why, and what to do about it; `evaluating`: the verb has the flags of eval.
ThresholdSources settle_thresholds(LoadedModel& loaded, const std::optional<Calibration>& made,
                                   const std::vector<std::string>& overrides, bool evaluating);

/// The lines "thresholds     learned", or one for each layer where they differ: "thresholds 3   learned".
std::string thresholds_in_words(const ThresholdSources& sources);

/// What a figure was made under: "causal, context 128", or "noncausal, scope batch of 8 sequences, context 128" for
/// `batch` sequences at a time.
std::string scope_in_words(LanguageModel& model, Mode mode, int64_t batch);

/// The mean number of experts per token that the model's configuration asks of the layers with experts; 0 without any.
double budget_of(const Config& config);

}  // namespace agon
