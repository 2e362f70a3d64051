#include "apps/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "apps/atomic_file.h"
#include "core/error.h"

namespace agon {

namespace {

constexpr uint64_t kMaxLogBytes = uint64_t(4) << 30;

bool holds_run(const std::string& folder) {
  for (const char* name : {"config.toml", "log.jsonl", "checkpoints", "latest", "best"})
    if (exists(folder + '/' + name)) return true;
  return false;
}

bool stays(std::string_view line, int64_t step) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return false;
  const auto found = json.find("step");
  return found == json.end() || !found->is_number() || found->get<double>() <= double(step);
}

}  // namespace

RunDirectory RunDirectory::open(const std::string& path, bool resume) {
  require(!path.empty(), "train.out: found no name, expected that of a folder");
  make_folder(path);
  const std::string lock = path + "/.lock";
  const bool existed = holds_run(path);
  require(resume || !existed, path,
          ": found a run, expected none: continue it with --resume or choose another train.out");
  const int file = system_call(lock, "open", [&] { return ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666); });
  RunDirectory run(path, file);
  if (::flock(file, LOCK_EX | LOCK_NB) != 0) {
    require(errno != EWOULDBLOCK, path, ": another process is training there (it holds ", lock, ')');
    throw_system_error(lock, "flock", errno);
  }
  // Looked at again: another process may have begun a run before this one had the lock.
  run.existed_ = holds_run(path);
  require(resume || !run.existed_, path, ": another process has just begun a run there");
  return run;
}

RunDirectory::RunDirectory(RunDirectory&& other) noexcept
    : path_(std::move(other.path_)),
      existed_(other.existed_),
      lock_(std::exchange(other.lock_, -1)),
      log_(std::exchange(other.log_, -1)) {}

RunDirectory::~RunDirectory() {
  if (log_ >= 0) ::close(log_);
  if (lock_ >= 0) ::close(lock_);  // gives the lock up
}

void RunDirectory::write_config(std::string_view contents) const { write_atomically(path_ + "/config.toml", contents); }

void RunDirectory::open_log(int64_t step) {
  check(log_ < 0, path_, ": the log is open already");
  const std::string path = path_ + "/log.jsonl";
  cut_log(path, step);
  log_ =
      system_call(path, "open", [&] { return ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666); });
  sync_folder(path_);
}

void RunDirectory::log(std::string_view line) const {
  check(line.find('\n') == std::string_view::npos, "a line of the log with a line break in it: ", line);
  const std::string whole = std::string(line) + '\n', path = path_ + "/log.jsonl";
  for (size_t done = 0; done < whole.size();)
    done += size_t(system_call(path, "write", [&] { return ::write(log_, whole.data() + done, whole.size() - done); }));
}

void RunDirectory::sync_log() const {
  const std::string path = path_ + "/log.jsonl";
  system_call(path, "fsync", [&] { return ::fsync(log_); });
}

bool RunDirectory::take_checkpoint_request() const { return ::unlink((path_ + "/checkpoint-now").c_str()) == 0; }

void cut_log(const std::string& path, int64_t step, FileSystem& files) {
  if (!exists(path, files)) return;
  const std::string all = read_file(path, kMaxLogBytes, files);
  std::string kept;
  for (size_t begin = 0, end; (end = all.find('\n', begin)) != std::string::npos; begin = end + 1)
    if (stays(std::string_view(all).substr(begin, end - begin), step)) kept.append(all, begin, end + 1 - begin);
  if (kept != all) write_atomically(path, kept, files);
}

}  // namespace agon
