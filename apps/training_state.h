#pragma once
#include <string>
#include <vector>

#include "apps/checkpoint.h"
#include "apps/model.h"
#include "apps/optimizer.h"
#include "apps/tokenizer.h"
#include "moe/schedule.h"

namespace agon {

/// What a run is besides its tensors; the `state` of a checkpoint.
struct TrainingState {
  int64_t step = 0;           // optimizer steps done
  double best_val_loss = -1;  // nats per token; negative: never evaluated
  uint64_t fingerprint = 0;   // of the corpus (corpus.h)
  std::string tokenizer;      // its JSON
  CompetitionSchedule::State schedule;

  std::string json() const;
  /// Throws UserError naming `source` when a field is missing or of the wrong type.
  static TrainingState from_json(const std::string& json, const std::string& source);
};

/// Masters by path, then the routers' named state; of experts the part that this rank has.
std::vector<TensorPart> model_tensors(LanguageModel& model);
/// Moments: "first.PATH", "second.PATH"; the parts that this rank has.
std::vector<TensorPart> optimizer_tensors(Optimizer& optimizer);

/// Fills a model, or a rank's part of it, from a checkpoint, converting the masters' dtype where the precision differs;
/// values follow. With `saved`, the checkpoint's own configuration, a layer may route by another strategy than it did
/// there: its routing state is then not the checkpoint's, which may lack it or have another's, and starts anew.
/// Thresholds that were learned for another budget or other scores are forgotten. UserError naming the tensor where
/// anything else is missing or too many.
void load_model(const Checkpoint& checkpoint, LanguageModel& model, const Config* saved = nullptr);

/// A model as a checkpoint has it, for evaluation and generation.
struct LoadedModel {
  Config config;
  Config saved;  // before the overrides
  TrainingState state;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<LanguageModel> model;
  std::string path;  // of the checkpoint
};

/// Opens CKPT (a checkpoint's folder, a run directory, RUN/best), with overrides of its configuration; the model is on
/// the device it names. `here`: on the CPU whatever it names, for those who only look.
LoadedModel open_model(const std::string& path, const std::vector<std::string>& overrides, Communicator& comm,
                       bool here = false);

}  // namespace agon
