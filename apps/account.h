#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "apps/model.h"

namespace agon {

/// What a model costs, counted from its parameters, of which a rank may hold a part.
struct Account {
  int64_t parameters = 0;    ///< all of them, on all ranks
  double active = 0;         ///< what a token uses: k experts per layer with experts, embedding rows counted once
  double forward_flops = 0;  ///< per token: 2 per multiply-add parameter used, attention 4 · D · context/2 per block
  double training_flops() const { return 3 * forward_flops; }  ///< the backward pass is twice the forward
  int64_t value_bytes = 0, gradient_bytes = 0;                 ///< of this rank's: values with masters, and gradients
};

Account account(LanguageModel& model);

/// Bytes this process may still take: MemAvailable of the system, or the control group's limit where that is less.
int64_t available_memory();
/// The most memory the process has had at one time (resident high-water mark), bytes.
int64_t peak_resident();

}  // namespace agon
