#pragma once
#include "apps/data.h"
#include "apps/log.h"
#include "apps/model.h"
#include "apps/optimizer.h"
#include "apps/step.h"
#include "apps/step_numbers.h"
#include "core/copy.h"
#include "moe/schedule.h"

namespace agon {

/// The tokens of a batch as a model on `device` takes them.
inline Sequences sequences_of(const Batch& b, Device device) {
  return {on_device(b.token, device), on_device(b.position, device), b.offsets, b.first_row,
          on_device(b.offsets, device)};
}

/// Optimizer steps over a model: micro-batches forward and backward, clipping, update, the routers' state. Every rank
/// has one and calls the same; each takes its part of every micro-batch.
class Trainer {
 public:
  Trainer(const Config& config, LanguageModel& model, Optimizer& optimizer, const TrainingData& data, Ranks& ranks);

  /// Step `step` (from 0) on the sequences of step `data_step`; what it reports is of all ranks. Throws Error naming
  /// step, layer, tensor and, of many, the rank when the loss or a gradient is not finite; then neither parameters nor
  /// moments nor router state have changed.
  StepReport step(int64_t step, int64_t data_step);

  /// Forward and backward over `sequences` sequences on each rank without an update, in an arena that only measures:
  /// its extent.
  size_t measure(int64_t sequences);

  /// Of this rank in the last step.
  const Communication& communication() const { return communication_; }
  Step& arena() { return arena_; }
  const Step& arena() const { return arena_; }
  const CompetitionSchedule& schedule() const { return schedule_; }
  /// Goes on with a schedule that was saved; `source` is named where it does not fit.
  void restore(CompetitionSchedule::State schedule, const std::string& source);

 private:
  /// Copies that outlive a step's arena; the next step uses their blocks again.
  struct Kept {
    std::vector<Tensor> tensors;
    size_t used = 0;
    void add(const Tensor& t);
  };
  int64_t micro_batches() const {
    return config_.train.micro_batch ? config_.train.batch / config_.train.micro_batch : 1;
  }
  /// What one micro-batch is part of.
  struct Place {
    int64_t step;
    const CompetitionSchedule* schedule;
    double share;  // of the step's tokens
    bool last;     // whose backward pass completes the gradients
  };
  Batch batch(int64_t data_step, int64_t micro) const;
  void begin();
  NumbersOfMicro forward_backward(const Batch& batch, const Place& place);
  void add_chosen(const std::vector<Statistics>& statistics);
  NumbersOfMicro pass(int64_t step, int64_t data_step, int64_t micro, bool last);
  void refuse_pass(RouterContext where, const Sequences& at);
  void check_finite(int64_t step, int64_t data_step, const std::vector<NumbersOfMicro>& micros, double loss,
                    double gradient_norm);
  RouterContext context(int64_t step) const;

  Config config_;
  LanguageModel& model_;
  Optimizer& optimizer_;
  const TrainingData& data_;
  Ranks& ranks_;
  CompetitionSchedule schedule_;
  Step arena_;
  StepLog log_;
  Communication communication_;
  Tensor total_;                  // [1] f64: the step's loss, which the update depends on
  std::vector<Tensor> chosen_;    // [E] f64 per block, empty for dense ones: Statistics::chosen summed, of all ranks
  std::vector<Kept> candidates_;  // per block: Statistics::candidates of the micro-batches
};

}  // namespace agon
