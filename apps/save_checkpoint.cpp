#include "apps/checkpoint.h"
#include "apps/checkpoint_folder.h"
#include "apps/manifest.h"

namespace agon {

namespace {

/// The folder a checkpoint is written in; disappears with all its contents unless it was renamed.
class FolderAside {
 public:
  FolderAside(std::string path, FileSystem& files) : path_(std::move(path)), files_(files) {
    system_call(path_, "mkdir", [&] { return files_.mkdir(path_.c_str(), 0777); });
  }
  ~FolderAside() {
    if (renamed_) return;
    try {
      remove_checkpoint(path_, files_);
    } catch (const Error&) {  // left for the next save to tidy up; what failed before matters more
    }
  }
  FolderAside(const FolderAside&) = delete;
  FolderAside& operator=(const FolderAside&) = delete;

  template <class Body>
  FileDigest write(const char* name, Body&& body) {
    FileWriter file(path_ + '/' + name, files_);
    body(file);
    return file.finish();
  }

  void rename(const std::string& to) {
    sync_folder(path_, files_);
    system_call(to, "rename", [&] { return files_.rename(path_.c_str(), to.c_str()); });
    renamed_ = true;
  }

 private:
  std::string path_;
  FileSystem& files_;
  bool renamed_ = false;
};

/// Makes way for a checkpoint of the same step: the one in its place keeps a name of its own until the new one is
/// there.
void move_aside(const std::string& from, const std::string& to, FileSystem& files) {
  if (exists(from, files)) system_call(from, "rename", [&] { return files.rename(from.c_str(), to.c_str()); });
}

}  // namespace

SavedCheckpoint save_checkpoint(const std::string& run, int64_t step, std::span<const NamedTensor> model,
                                std::span<const NamedTensor> optimizer, const std::string& state,
                                const std::string& config, const CheckpointOptions& options) {
  check(options.keep >= 2, "keeping ", options.keep,
        " checkpoints, expected at least 2: the newest may turn out damaged");
  check(step >= 0, "a checkpoint of step ", step);
  FileSystem& files = *options.files;
  const std::string place = CheckpointFolder{CheckpointFolder::whole, step}.path(run),
                    old = CheckpointFolder{CheckpointFolder::old, step}.path(run);
  SavedCheckpoint saved{place, {}};
  make_folder(folder_of_checkpoints(run), files);
  tidy_checkpoints(run, saved.warnings, files);
  {
    FolderAside aside(CheckpointFolder{CheckpointFolder::temporary, step}.path(run), files);
    Manifest manifest{step, options.best, {}, state, config};
    manifest.files["model.safetensors"] =
        aside.write("model.safetensors", [&](FileWriter& f) { write_safetensors(f, model); });
    manifest.files["optimizer.safetensors"] =
        aside.write("optimizer.safetensors", [&](FileWriter& f) { write_safetensors(f, optimizer); });
    const std::string contents = make_manifest(manifest);
    aside.write("manifest.json", [&](FileWriter& f) { f.write(contents.data(), contents.size()); });
    move_aside(place, old, files);
    try {
      aside.rename(place);
    } catch (...) {
      files.rename(old.c_str(), place.c_str());  // where there is an old one
      throw;
    }
  }
  sync_folder(folder_of_checkpoints(run), files);
  rotate_checkpoints(run, step, options.keep, saved.warnings, files);
  return saved;
}

}  // namespace agon
