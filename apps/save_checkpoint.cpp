#include <set>
#include <sstream>

#include "apps/checkpoint.h"
#include "apps/checkpoint_folder.h"
#include "apps/manifest.h"
#include "apps/shard_plan.h"
#include "distributed/together.h"

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

template <class Body>
FileDigest write_file(const std::string& path, FileSystem& files, Body&& body) {
  FileWriter file(path, files);
  body(file);
  return file.finish();
}

/// What one save is about, on one rank.
struct Save {
  std::string run;
  int64_t step;
  std::vector<TensorPart> parts[std::size(kTensorKinds)];
  FileSystem& files;
  Communicator& comm;

  std::string path(CheckpointFolder::Kind kind) const { return CheckpointFolder{kind, step}.path(run); }
};

Offer offer_of(const Save& save) {
  Offer offer{save.step, {}};
  for (size_t kind = 0; kind < std::size(kTensorKinds); ++kind)
    for (const TensorPart& p : save.parts[kind])
      offer.parts.push_back({kTensorKinds[kind], p.name, p.tensor.dtype(), *p.whole, p.first, p.tensor.size()});
  return offer;
}

/// What the plan has in `file`, cut from the parts of this rank.
std::vector<TensorSlice> slices_for(const std::string& file, const TensorTable& table,
                                    std::span<const TensorPart> parts) {
  std::vector<TensorSlice> slices;
  std::set<std::string> taken;  // what lies in two parts of this rank comes from the first
  for (const TensorPart& p : parts) {
    const StoredTensor& tensor = table.at(p.name);
    for (const StoredPart& s : tensor.parts) {
      const bool here = s.file == file && s.first >= p.first && s.first + s.count <= p.first + p.tensor.size();
      std::string name = name_of_part(p.name, tensor.shape, s.first, s.count);
      if (!here || !taken.insert(name).second) continue;
      const Shape shape = name == p.name               ? tensor.shape
                          : s.count == p.tensor.size() ? p.tensor.shape()
                                                       : Shape{s.count};
      slices.push_back({std::move(name), p.tensor, s.first - p.first, shape});
    }
  }
  return slices;
}

/// Writes the files of this rank; a line "BYTES CHECKSUM" for each.
std::string write_files(const Save& save, const ShardPlan& plan) {
  const std::string folder = save.path(CheckpointFolder::temporary);
  const int rank = save.comm.rank(), ranks = save.comm.size();
  require(rank == 0 || exists(folder, save.files), folder, ": not found, though rank 0 on ", save.comm.host(0),
          " has just made it: the run directory must be in a file system that all ranks share");
  Metadata metadata;
  if (!plan.one_file) metadata[kShardKey] = text(rank + 1, " of ", ranks, " of step ", save.step);
  std::string digests;
  for (size_t kind = 0; kind < std::size(kTensorKinds); ++kind) {
    const std::string name = plan.file(kTensorKinds[kind], rank, ranks);
    const std::vector<TensorSlice> slices = slices_for(name, plan.tables.at(kTensorKinds[kind]), save.parts[kind]);
    const FileDigest digest =
        write_file(folder + '/' + name, save.files, [&](FileWriter& f) { write_safetensors(f, slices, metadata); });
    digests += text(digest.bytes, ' ', digest.checksum, '\n');
  }
  if (rank > 0) sync_folder(folder, save.files);
  return digests;
}

/// The files of all ranks; what others have written must be here too.
std::map<std::string, FileDigest> files_of_all(const Save& save, const ShardPlan& plan,
                                               std::span<const std::string> digests) {
  const std::string folder = save.path(CheckpointFolder::temporary);
  std::map<std::string, FileDigest> all;
  for (int rank = 0; rank < save.comm.size(); ++rank) {
    std::istringstream lines(digests[size_t(rank)]);
    for (const char* kind : kTensorKinds) {
      const std::string name = plan.file(kind, rank, save.comm.size());
      lines >> all[name].bytes >> all[name].checksum;
      require(rank == 0 || exists(folder + '/' + name, save.files), folder, '/', name, ": written by rank ", rank,
              " on ", save.comm.host(rank), " and not found on ", save.comm.host(0),
              ": the run directory must be in a file system that all ranks share");
    }
  }
  return all;
}

/// Gives the folder aside its name.
void put_in_place(FolderAside& aside, const Save& save) {
  const std::string place = save.path(CheckpointFolder::whole), old = save.path(CheckpointFolder::old);
  move_aside(place, old, save.files);
  try {
    aside.rename(place);
  } catch (...) {
    save.files.rename(old.c_str(), place.c_str());  // where there is an old one
    throw;
  }
}

}  // namespace

SavedCheckpoint save_checkpoint(const std::string& run, int64_t step, std::span<const TensorPart> model,
                                std::span<const TensorPart> optimizer, const std::string& state,
                                const std::string& config, const CheckpointOptions& options, Communicator& comm) {
  FileSystem& files = *options.files;
  Save save{run, step, {}, files, comm};
  const std::vector<std::string> offers = gather(comm, [&] {
    check(options.keep >= 2, "keeping ", options.keep,
          " checkpoints, expected at least 2: the newest may turn out damaged");
    check(step >= 0, "a checkpoint of step ", step);
    for (const TensorPart& part : model) save.parts[0].push_back(resolved(part));
    for (const TensorPart& part : optimizer) save.parts[1].push_back(resolved(part));
    return to_text(offer_of(save));
  });
  std::vector<Offer> by_rank;
  for (const std::string& offer : offers) by_rank.push_back(offer_from_text(offer));
  const ShardPlan plan = plan_shards(by_rank);

  SavedCheckpoint saved{save.path(CheckpointFolder::whole), {}};
  const auto on_rank_0 = [&](auto&& body) {
    together(comm, [&] {
      if (comm.rank() == 0) body();
    });
  };
  {
    std::optional<FolderAside> aside;
    on_rank_0([&] {
      make_folder(folder_of_checkpoints(run), files);
      tidy_checkpoints(run, saved.warnings, files);
      aside.emplace(save.path(CheckpointFolder::temporary), files);
    });
    const std::vector<std::string> digests = gather(comm, [&] { return write_files(save, plan); });
    on_rank_0([&] {
      Manifest manifest{step, options.best, files_of_all(save, plan, digests), state, config};
      if (!plan.one_file) manifest.tensors = plan.tables;
      const std::string contents = make_manifest(manifest);
      write_file(save.path(CheckpointFolder::temporary) + "/manifest.json", files,
                 [&](FileWriter& f) { f.write(contents.data(), contents.size()); });
      put_in_place(*aside, save);
    });
  }
  on_rank_0([&] {
    sync_folder(folder_of_checkpoints(run), files);
    rotate_checkpoints(run, step, options.keep, saved.warnings, files);
  });
  return saved;
}

SavedCheckpoint save_checkpoint(const std::string& run, int64_t step, std::span<const NamedTensor> model,
                                std::span<const NamedTensor> optimizer, const std::string& state,
                                const std::string& config, const CheckpointOptions& options) {
  const auto parts = [](std::span<const NamedTensor> tensors) {
    std::vector<TensorPart> all;
    for (const NamedTensor& t : tensors) all.push_back({t.name, t.tensor});
    return all;
  };
  return save_checkpoint(run, step, parts(model), parts(optimizer), state, config, options, *make_self_communicator());
}

}  // namespace agon
