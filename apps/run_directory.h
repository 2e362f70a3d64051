#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "apps/file_system.h"

namespace agon {

/// The folder `train.out` of one run, locked against a second process for as long as this object lives: config.toml,
/// log.jsonl, checkpoints/, latest, best (checkpoint.h).
class RunDirectory {
 public:
  /// Creates the folder, with its parents, or takes up the run in it. Without `resume`, a folder that holds a run
  /// already is a UserError and nothing in it is touched. With `resume` and no run there, a new one begins. UserError
  /// when another process has the folder. Writes nothing but the folders and `.lock`.
  static RunDirectory open(const std::string& path, bool resume);
  RunDirectory(RunDirectory&& other) noexcept;
  RunDirectory& operator=(RunDirectory&&) = delete;
  ~RunDirectory();

  const std::string& path() const { return path_; }
  /// Whether there was a run already (it may have no checkpoint yet).
  bool existed() const { return existed_; }

  /// Replaces config.toml.
  void write_config(std::string_view text) const;
  /// Opens log.jsonl for appending, after removing the lines of steps after `step` (cut_log): the step of the
  /// checkpoint that a run continues from, or -1 to begin anew.
  void open_log(int64_t step);
  /// Appends one line: a JSON object without line breaks. To lose none, log a step before saving its checkpoint.
  void log(std::string_view line) const;
  /// Makes the log durable; to be called before a checkpoint is saved.
  void sync_log() const;
  /// Whether someone made a file `checkpoint-now`; removes it. One that cannot be removed is ignored, or it would ask
  /// at every step.
  bool take_checkpoint_request() const;

 private:
  RunDirectory(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}

  std::string path_;
  bool existed_ = false;
  int lock_ = -1, log_ = -1;
};

/// Removes from a log, atomically, the lines whose "step" is greater than `step`, the line that a kill tore off at the
/// end, and whatever is not a JSON object. A missing log is an empty one.
void cut_log(const std::string& path, int64_t step, FileSystem& files = FileSystem::real());

}  // namespace agon
