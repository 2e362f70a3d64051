#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/file_system.h"

namespace agon {

/// A folder in RUN/checkpoints: `step-N` is a checkpoint, `.step-N.tmp` one being written, `.step-N.old` the one that a
/// new `step-N` is about to replace.
struct CheckpointFolder {
  enum Kind { whole, old, temporary } kind = whole;
  int64_t step = 0;
  std::string path(const std::string& run) const;
};

inline std::string folder_of_checkpoints(const std::string& run) { return run + "/checkpoints"; }

/// What a name in RUN/checkpoints stands for; nothing for names of other forms.
std::optional<CheckpointFolder> parse_checkpoint_folder(const std::string& name);

/// All of a run, newest first; a `step-N` before its `.step-N.old`. None where the run has no checkpoints.
std::vector<CheckpointFolder> list_checkpoints(const std::string& run, FileSystem& files);

/// Removes a checkpoint or what is left of one, manifest first and durably, so that no moment leaves a checkpoint that
/// looks whole and is not. Symbolic links are removed, not followed.
void remove_checkpoint(const std::string& path, FileSystem& files);

/// Removes what an interrupted save left behind; an old checkpoint whose replacement never came gets its name back.
void tidy_checkpoints(const std::string& run, std::vector<std::string>& warnings, FileSystem& files);

/// To be called when `newest` is in place: writes RUN/latest and RUN/best, then removes the checkpoints of later steps,
/// those without a manifest, and all that are older than the newest `keep` whole ones, but never the best. A damaged
/// one does not count among those. What cannot be read or removed becomes a warning.
void rotate_checkpoints(const std::string& run, int64_t newest, int keep, std::vector<std::string>& warnings,
                        FileSystem& files);

}  // namespace agon
