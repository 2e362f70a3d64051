#pragma once
#include <optional>
#include <string>
#include <vector>

#include "apps/config.h"

namespace agon {

/// Whether a job that failed is started again.
class Restarts {
 public:
  /// `most` restarts; `checkpoint` is the last one there is now, "" for none.
  Restarts(int most, std::string checkpoint) : most_(most), checkpoint_(std::move(checkpoint)) {}

  /// Whether to start again after a failure, when `checkpoint` is the last one: at most `most` times, and not when no
  /// new checkpoint came in two tries. `why` says in either case how it stands.
  bool again(const std::string& checkpoint, std::string& why);

 private:
  int most_, made_ = 0, in_vain_ = 0;
  std::string checkpoint_;
};

/// The words after `agon launch -n N` that continue what these began: `train` with --resume, other verbs as they are.
std::vector<std::string> continued(std::vector<std::string> words);

/// The configuration of `train CONFIG key=value ...`; none of other verbs, nor where it cannot be read: the ranks say
/// why.
std::optional<Config> config_of(const std::vector<std::string>& words);

/// What RUN/latest names; "" without one.
std::string last_checkpoint(const std::string& run);

}  // namespace agon
