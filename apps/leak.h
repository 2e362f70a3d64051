#pragma once
#include "apps/data.h"
#include "apps/model.h"
#include "apps/step.h"

namespace agon {

/// What tokens learn of tokens they must not see: largest absolute differences of the vectors before the head after
/// single tokens were changed.
struct Leak {
  double earlier = 0;  // of positions before the changed one in its sequence
  double others = 0;   // of the other sequences of the batch
  double later = 0;    // of the changed position and those after it: that the change was seen at all
  int64_t changes = 0;
};

/// Changes one token at a time, at three places each of up to four windows spread over `data`, and compares with the
/// unchanged pass. `batch` windows go through the model together, as evaluate() takes them. UserError where there is
/// nothing to change.
Leak measure_leak(LanguageModel& model, const EvaluationData& data, int64_t batch, Mode mode, Step& arena);

}  // namespace agon
