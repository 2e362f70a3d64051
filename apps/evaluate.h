#pragma once
#include <vector>

#include "apps/data.h"
#include "apps/model.h"
#include "apps/step.h"

namespace agon {

struct Evaluation {
  double loss = 0;           // nats per token
  double bits_per_byte = 0;  // bits of all tokens over the bytes of text they stand for
  double perplexity = 0;     // exp(loss)
  int64_t tokens = 0, bytes = 0;
  double experts_per_token = 0;           // realised, mean over layers with experts
  std::vector<std::vector<double>> load;  // per layer with experts: pairs per expert
  std::vector<int64_t> block;             // of each of those layers: its index in the model

  /// Realised by one of those layers.
  double experts_per_token_of(size_t layer) const;
};

/// The model on a whole text, `batch` windows at a time on each rank, in `arena`: a training run lends its own, which
/// is larger than an evaluation needs. What it gives is of all ranks. Collective over `all`, which the ranks of the
/// model's experts are among. Throws UserError when there is nothing to predict.
Evaluation evaluate(LanguageModel& model, const EvaluationData& data, int64_t batch, Mode mode, Step& arena,
                    Communicator& all);

}  // namespace agon
