#include "apps/checkpoint.h"

#include "apps/checkpoint_folder.h"
#include "apps/manifest.h"

namespace agon {

namespace {

Manifest verified_manifest(const std::string& folder, FileSystem& files) {
  require(exists(folder + "/manifest.json", files), folder, ": not a checkpoint: found no manifest.json in it");
  Manifest m = read_manifest(folder, files);
  verify_files(folder, m, true, files);
  return m;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string all;
  for (const std::string& line : lines) all += "\n  " + line;
  return all;
}

}  // namespace

Checkpoint::Checkpoint(const std::string& folder, FileSystem& files)
    : Checkpoint(folder, verified_manifest(folder, files), files) {}

Checkpoint::Checkpoint(const std::string& folder, Manifest manifest, FileSystem& files)
    : path_(folder),
      step_(manifest.step),
      state_(std::move(manifest.state)),
      config_(std::move(manifest.config)),
      model_(SafetensorsFile::open(folder + "/model.safetensors", files)),
      optimizer_(SafetensorsFile::open(folder + "/optimizer.safetensors", files)) {}

FoundCheckpoint find_latest_valid(const std::string& run, FileSystem& files) {
  FoundCheckpoint found;
  for (const CheckpointFolder& f : list_checkpoints(run, files)) {
    if (f.kind == CheckpointFolder::temporary) continue;
    try {
      found.checkpoint.emplace(f.path(run), files);
      require(found.checkpoint->step() == f.step, f.path(run), ": found the checkpoint of step ",
              found.checkpoint->step());
      break;
    } catch (const Error& e) {
      // Only what is seen to be damaged is passed over: continuing from an older one replaces what came after it.
      if (!dynamic_cast<const UserError*>(&e) || dynamic_cast<const NoPermission*>(&e))
        throw Error(text(e.what(), "; nothing was changed. Move ", f.path(run), " away to go on from an older one"),
                    e.exit_code());
      found.checkpoint.reset();
      found.skipped.push_back(e.what());
    }
  }
  return found;
}

Checkpoint open_checkpoint(const std::string& path, std::vector<std::string>* skipped, FileSystem& files) {
  struct stat s {};
  system_call(path, "lstat", [&] { return files.lstat(path.c_str(), &s); });
  if (S_ISREG(s.st_mode)) {
    std::string name = read_file(path, 4096, files);
    name = name.substr(0, name.find('\n'));
    const size_t slash = name.find('/');
    const auto folder = parse_checkpoint_folder(name.substr(slash + 1));
    require(slash != std::string::npos && name.substr(0, slash) == "checkpoints" && folder &&
                folder->kind == CheckpointFolder::whole,
            path, ": not a checkpoint: expected a checkpoint's folder, a run directory, or its file best or latest");
    return Checkpoint(folder->path(folder_of(path)), files);
  }
  if (exists(path + "/manifest.json", files) || !exists(folder_of_checkpoints(path), files))
    return Checkpoint(path, files);
  FoundCheckpoint found = find_latest_valid(path, files);
  require(found.checkpoint.has_value(), path, ": this run has no valid checkpoint", joined(found.skipped));
  if (skipped) skipped->insert(skipped->end(), found.skipped.begin(), found.skipped.end());
  return std::move(*found.checkpoint);
}

}  // namespace agon
