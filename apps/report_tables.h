#pragma once
#include <map>
#include <string>

#include "apps/account.h"
#include "apps/optimizer.h"

namespace agon {

/// The parts of a training process's memory, bytes.
struct MemoryUse {
  int64_t arena = 0;       // activations and everything else a step makes
  int64_t parameters = 0;  // values and masters
  int64_t gradients = 0, optimizer = 0;
  int64_t text = 0;  // tokens of the corpus
  int64_t total() const { return arena + parameters + gradients + optimizer + text; }
};

/// One line: sizes and costs of a model.
std::string describe(const Config& config, const Account& account, int64_t vocabulary);

/// The table of `use`, and how many sequences at a time would fit the `available` bytes that an arena may take, when
/// one takes `per_sequence` bytes of it besides `fixed`.
std::string memory_table(const MemoryUse& use, int64_t fixed, int64_t per_sequence, int64_t available);

/// UserError with the table of `use`, and what to change, where a GPU has only `available` bytes for it, or where
/// `found` says that it had too few. Nothing on the CPU, whose system may page.
void require_room(const MemoryUse& use, int64_t available, Device device, const std::string& found = "");

/// Seconds and share per part of the program (core/profile.h), largest first, of a run on `device`.
std::string time_table(const std::map<std::string, double>& seconds, Device device = {});

}  // namespace agon
