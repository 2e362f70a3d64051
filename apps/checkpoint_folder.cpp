#include "apps/checkpoint_folder.h"

#include <algorithm>

#include "apps/manifest.h"
#include "core/error.h"

namespace agon {

namespace {

enum class Health { whole, best, doubtful, absent };

/// What manifest and sizes tell of a checkpoint. `doubtful`, with a warning: damaged, or it cannot be read just now.
Health health(const std::string& path, std::vector<std::string>& warnings, FileSystem& files) {
  try {
    if (!exists(path + "/manifest.json", files)) return Health::absent;
    const Manifest m = read_manifest(path, files);
    verify_files(path, m, false, files);
    return m.best ? Health::best : Health::whole;
  } catch (const Error& e) {
    warnings.push_back(e.what());
    return Health::doubtful;
  }
}

/// RUN/latest or RUN/best, for people and scripts: the truth is in the folders.
void point(const std::string& path, const std::optional<CheckpointFolder>& at, FileSystem& files) {
  const bool there = exists(path, files);
  if (!at) {
    if (there) system_call(path, "unlink", [&] { return files.unlink(path.c_str()); });
    return;
  }
  const std::string wanted = at->path(".").substr(2) + '\n';
  if (there && read_file(path, 4096, files) == wanted) return;
  write_atomically(path, wanted, files);
}

void remove_or_warn(const std::string& path, std::vector<std::string>& warnings, FileSystem& files) {
  try {
    remove_checkpoint(path, files);
  } catch (const Error& e) { warnings.push_back(text("cannot remove ", path, ": ", e.what())); }
}

}  // namespace

std::string CheckpointFolder::path(const std::string& run) const {
  return text(folder_of_checkpoints(run), kind == whole ? "/step-" : "/.step-", step,
              kind == whole ? ""
              : kind == old ? ".old"
                            : ".tmp");
}

std::optional<CheckpointFolder> parse_checkpoint_folder(const std::string& name) {
  const size_t first = name.find_first_of("0123456789"), last = name.find_last_of("0123456789");
  if (first == std::string::npos || last - first >= 18) return {};
  CheckpointFolder f;
  for (const auto kind : {CheckpointFolder::whole, CheckpointFolder::old, CheckpointFolder::temporary}) {
    f = {kind, 0};
    for (size_t i = first; i <= last; ++i) f.step = f.step * 10 + (name[i] - '0');
    if (f.path(".") == "./checkpoints/" + name) return f;
  }
  return {};
}

std::vector<CheckpointFolder> list_checkpoints(const std::string& run, FileSystem& files) {
  const std::string folder = folder_of_checkpoints(run);
  std::vector<CheckpointFolder> found;
  if (!exists(folder, files)) return found;
  std::vector<std::string> names;
  system_call(folder, "opendir", [&] { return files.list(folder.c_str(), &names); });
  for (const std::string& name : names)
    if (const auto f = parse_checkpoint_folder(name)) found.push_back(*f);
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.step != b.step ? a.step > b.step : a.kind < b.kind; });
  return found;
}

void remove_checkpoint(const std::string& path, FileSystem& files) {
  struct stat s {};
  system_call(path, "lstat", [&] { return files.lstat(path.c_str(), &s); });
  const auto unlink = [&](const std::string& name) {
    system_call(name, "unlink", [&] { return files.unlink(name.c_str()); });
  };
  if (!S_ISDIR(s.st_mode)) return unlink(path);
  if (const std::string manifest = path + "/manifest.json"; exists(manifest, files)) {
    unlink(manifest);
    sync_folder(path, files);
  }
  std::vector<std::string> names;
  system_call(path, "opendir", [&] { return files.list(path.c_str(), &names); });
  for (const std::string& name : names) unlink(path + '/' + name);
  system_call(path, "rmdir", [&] { return files.rmdir(path.c_str()); });
}

void tidy_checkpoints(const std::string& run, std::vector<std::string>& warnings, FileSystem& files) {
  for (const CheckpointFolder& f : list_checkpoints(run, files)) {
    const std::string path = f.path(run);
    if (f.kind == CheckpointFolder::whole) continue;
    const CheckpointFolder successor{CheckpointFolder::whole, f.step};
    if (f.kind == CheckpointFolder::old && !exists(successor.path(run), files))
      system_call(path, "rename", [&] { return files.rename(path.c_str(), successor.path(run).c_str()); });
    else
      remove_or_warn(path, warnings, files);
  }
}

void rotate_checkpoints(const std::string& run, int64_t newest, int keep, std::vector<std::string>& warnings,
                        FileSystem& files) {
  std::vector<CheckpointFolder> unwanted;
  std::optional<CheckpointFolder> best;
  int kept = 0;
  for (const CheckpointFolder& f : list_checkpoints(run, files)) {
    const bool current = f.kind == CheckpointFolder::whole && f.step <= newest;
    const Health found = current ? health(f.path(run), warnings, files) : Health::absent;
    const bool is_whole = found == Health::whole || found == Health::best, is_best = found == Health::best && !best;
    if (found == Health::absent || (kept >= keep && !is_best)) unwanted.push_back(f);
    if (is_best) best = f;
    if (is_whole) ++kept;
  }
  point(run + "/latest", CheckpointFolder{CheckpointFolder::whole, newest}, files);
  point(run + "/best", best, files);
  // Oldest first: a crash in between leaves the newest.
  for (auto f = unwanted.rbegin(); f != unwanted.rend(); ++f) remove_or_warn(f->path(run), warnings, files);
  if (!unwanted.empty()) sync_folder(folder_of_checkpoints(run), files);
}

}  // namespace agon
