#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "apps/stored_tensors.h"

namespace agon {

struct Manifest;

struct CheckpointOptions {
  int keep = 2;       ///< how many of the newest stay; at least 2
  bool best = false;  ///< the best so far: stays until a better one is saved
  FileSystem* files = &FileSystem::real();
};

struct SavedCheckpoint {
  std::string path;                   ///< RUN/checkpoints/step-N
  std::vector<std::string> warnings;  ///< older checkpoints that are damaged or could not be removed, and why
};

/// Saves RUN/checkpoints/step-N: model.safetensors, optimizer.safetensors and, last, manifest.json (manifest.h). The
/// folder is written aside as `.step-N.tmp`, everything in it synced and read back, then renamed and the parent synced,
/// so it is whole or absent whenever the process is killed. Then RUN/latest and RUN/best (text: checkpoints/step-N) are
/// replaced, and what is not among the newest `keep` and not the best is removed, manifest first. Checkpoints of later
/// steps, left over from before a fall-back to an earlier one, are removed too. When it throws before the rename,
/// nothing has changed.
///
/// On many ranks it is collective, and each writes shards, model-00002-of-00004.safetensors and the same for the
/// optimizer, of what it was given; what several were given alike, one of them writes. Together they must have every
/// element of every tensor. What fails on one rank fails on all with the same message, naming rank, host, file and
/// reason; where a rank is gone, the communicator's, which also gives up on a rank whose disk takes longer than the
/// others' by its deadline. `run` must be in a file system that all share. `state`, `config` and `options.best` are
/// those of rank 0; warnings are given to rank 0.
///
/// `state` is the text of a JSON object, `config` any text (UTF-8). Tensors may be on any device.
SavedCheckpoint save_checkpoint(const std::string& run, int64_t step, std::span<const TensorPart> model,
                                std::span<const TensorPart> optimizer, const std::string& state,
                                const std::string& config, const CheckpointOptions& options, Communicator& comm);
/// From one rank that has everything.
SavedCheckpoint save_checkpoint(const std::string& run, int64_t step, std::span<const NamedTensor> model,
                                std::span<const NamedTensor> optimizer, const std::string& state,
                                const std::string& config, const CheckpointOptions& options = {});

/// A checkpoint whose manifest is valid and whose files have the sizes and checksums it names.
class Checkpoint {
 public:
  /// `folder` is RUN/checkpoints/step-N or a copy of it anywhere. UserError naming the file that is missing, damaged or
  /// of another format, what was found and what was expected.
  explicit Checkpoint(const std::string& folder, FileSystem& files = FileSystem::real());
  /// On many ranks: each looks at its share of the files. Collective; all throw what one does, and an Error where they
  /// do not find the same checkpoint.
  static Checkpoint open(const std::string& folder, Communicator& comm, FileSystem& files = FileSystem::real());

  const std::string& path() const { return path_; }
  int64_t step() const { return step_; }
  const std::string& state() const { return state_; }    ///< JSON text of the object that was saved
  const std::string& config() const { return config_; }  ///< as it was saved
  const StoredTensors& model() const { return model_; }
  const StoredTensors& optimizer() const { return optimizer_; }

  /// Fills one tensor; shape and dtype must agree. UserError naming file, tensor, found and expected.
  void load_model(const std::string& name, const Tensor& into) const { model_.load_into(name, into); }
  void load_optimizer(const std::string& name, const Tensor& into) const { optimizer_.load_into(name, into); }
  /// Fills all of them, and refuses the checkpoint when it has others. Nothing is filled unless all names, shapes and
  /// dtypes agree.
  void load_model(std::span<const NamedTensor> into) const { model_.load_all(into); }
  void load_optimizer(std::span<const NamedTensor> into) const { optimizer_.load_all(into); }
  /// Fills any ranges of any tensors, however they were cut when they were saved. Names that are not asked for are not
  /// missed.
  void load_model(std::span<const TensorPart> into) const { model_.load(into); }
  void load_optimizer(std::span<const TensorPart> into) const { optimizer_.load(into); }
  /// The same, collective: what no rank asks for is refused, and all ranks throw what one does.
  void load_model(std::span<const TensorPart> into, Communicator& comm) const { model_.load_all(into, comm); }
  void load_optimizer(std::span<const TensorPart> into, Communicator& comm) const { optimizer_.load_all(into, comm); }

 private:
  Checkpoint(const std::string& folder, const Manifest& manifest, FileSystem& files);

  std::string path_;
  int64_t step_;
  std::string state_, config_;
  StoredTensors model_, optimizer_;
};

struct FoundCheckpoint {
  std::optional<Checkpoint> checkpoint;  ///< empty when the run has no valid one
  std::vector<std::string> skipped;      ///< one line for each newer one that is damaged: which file, why
};

/// The newest valid checkpoint of a run. A damaged one is passed over; one that may be whole and cannot be read just
/// now (no permission, an I/O error) is an Error, since the run that continued from an older one would replace it. On
/// many ranks: collective, each looks at its share of the files, and all find the same.
FoundCheckpoint find_latest_valid(const std::string& run, Communicator& comm, FileSystem& files = FileSystem::real());
FoundCheckpoint find_latest_valid(const std::string& run, FileSystem& files = FileSystem::real());

/// The checkpoint that a user names by its folder, by the run directory (the newest valid one), or by RUN/best or
/// RUN/latest. Lines about damaged ones that were passed over are appended to `skipped`. UserError where there is none.
/// On many ranks: collective, and all open the same.
Checkpoint open_checkpoint(const std::string& path, Communicator& comm, std::vector<std::string>* skipped = nullptr,
                           FileSystem& files = FileSystem::real());
Checkpoint open_checkpoint(const std::string& path, std::vector<std::string>* skipped = nullptr,
                           FileSystem& files = FileSystem::real());

}  // namespace agon
