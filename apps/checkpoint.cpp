#include "apps/checkpoint.h"

#include <algorithm>

#include "apps/checkpoint_folder.h"
#include "apps/manifest.h"
#include "distributed/together.h"

namespace agon {

namespace {

StoredTensors open_tensors(const std::string& folder, const Manifest& manifest, const char* kind, FileSystem& files) {
  if (manifest.tensors.empty())
    return StoredTensors(SafetensorsFile::open(text(folder, '/', kind, ".safetensors"), files));
  return StoredTensors(folder, manifest.tensors.at(kind), files);
}

std::string joined(const std::vector<std::string>& lines) {
  std::string all;
  for (const std::string& line : lines) all += "\n  " + line;
  return all;
}

/// The folder of the checkpoint that a path names; empty where it is a run directory.
std::string folder_named(const std::string& path, FileSystem& files) {
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
    return folder->path(folder_of(path));
  }
  return exists(path + "/manifest.json", files) || !exists(folder_of_checkpoints(path), files) ? path : "";
}

/// The checkpoints of a run as rank 0 sees them, newest first.
std::vector<CheckpointFolder> list_on_all(const std::string& run, Communicator& comm, FileSystem& files) {
  const std::string names = gather(comm, [&] {
    std::string lines;
    if (comm.rank() > 0) return lines;
    for (const CheckpointFolder& f : list_checkpoints(run, files))
      if (f.kind != CheckpointFolder::temporary)
        lines += f.path(run).substr(folder_of_checkpoints(run).size() + 1) + '\n';
    return lines;
  })[0];
  std::vector<CheckpointFolder> found;
  for (size_t at = 0, end = 0; (end = names.find('\n', at)) != std::string::npos; at = end + 1)
    found.push_back(*parse_checkpoint_folder(names.substr(at, end - at)));
  return found;
}

}  // namespace

Checkpoint::Checkpoint(const std::string& folder, FileSystem& files)
    : Checkpoint(open(folder, *make_self_communicator(), files)) {}

Checkpoint::Checkpoint(const std::string& folder, const Manifest& manifest, FileSystem& files)
    : path_(folder),
      step_(manifest.step),
      state_(manifest.state),
      config_(manifest.config),
      model_(open_tensors(folder, manifest, "model", files)),
      optimizer_(open_tensors(folder, manifest, "optimizer", files)) {}

Checkpoint Checkpoint::open(const std::string& folder, Communicator& comm, FileSystem& files) {
  std::optional<Manifest> manifest;
  const std::vector<std::string> seals = gather(comm, [&] {
    if (!exists(folder + "/manifest.json", files)) return std::string();
    manifest = read_manifest(folder, files);
    return manifest->seal;
  });
  for (int r = 1; r < comm.size(); ++r)
    if (const std::string& seal = seals[size_t(r)]; seal != seals[0])
      throw Error(text(folder, ": rank 0 on ", comm.host(0), seals[0].empty() ? " finds no" : " finds a",
                       " checkpoint there, rank ", r, " on ", comm.host(r), seal.empty() ? " none" : " another",
                       ": it must be in a file system that all ranks share"));
  require(manifest.has_value(), folder, ": not a checkpoint: found no manifest.json in it");
  together(comm, [&] { verify_files(folder, *manifest, true, files, comm.rank(), comm.size()); });
  std::optional<Checkpoint> opened;
  together(comm, [&] { opened.emplace(Checkpoint(folder, *manifest, files)); });
  return std::move(*opened);
}

FoundCheckpoint find_latest_valid(const std::string& run, Communicator& comm, FileSystem& files) {
  FoundCheckpoint found;
  for (const CheckpointFolder& f : list_on_all(run, comm, files)) {
    try {
      found.checkpoint.emplace(Checkpoint::open(f.path(run), comm, files));
      require(found.checkpoint->step() == f.step, f.path(run), ": found the checkpoint of step ",
              found.checkpoint->step());
      break;
    } catch (const Error& e) {
      comm.barrier();  // where it is a rank that failed, this throws
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

FoundCheckpoint find_latest_valid(const std::string& run, FileSystem& files) {
  return find_latest_valid(run, *make_self_communicator(), files);
}

Checkpoint open_checkpoint(const std::string& path, Communicator& comm, std::vector<std::string>* skipped,
                           FileSystem& files) {
  const std::string folder =
      gather(comm, [&] { return comm.rank() == 0 ? folder_named(path, files) : std::string(); })[0];
  if (!folder.empty()) return Checkpoint::open(folder, comm, files);
  FoundCheckpoint found = find_latest_valid(path, comm, files);
  require(found.checkpoint.has_value(), path, ": this run has no valid checkpoint", joined(found.skipped));
  if (skipped) skipped->insert(skipped->end(), found.skipped.begin(), found.skipped.end());
  return std::move(*found.checkpoint);
}

Checkpoint open_checkpoint(const std::string& path, std::vector<std::string>* skipped, FileSystem& files) {
  return open_checkpoint(path, *make_self_communicator(), skipped, files);
}

}  // namespace agon
