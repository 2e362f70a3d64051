#pragma once
#include <set>

#include "apps/file_system.h"

namespace agon::testing {

enum class Fault { none, io_error, full, interrupted, short_write, lie, kill };

/// Thrown by the call at which the process is killed (the one after it, where that is a close: destructors close); no
/// call after it does anything.
struct Killed {};

/// Passes calls on to another file system and makes one of them, by number, fail.
class FaultyFiles : public FileSystem {
 public:
  FaultyFiles(FileSystem& under, Fault fault, int at) : under_(under), fault_(fault), at_(at) {}
  ~FaultyFiles() override {
    for (int file : open_) under_.close(file);
  }
  int calls() const { return calls_; }
  bool struck() const { return struck_; }

  int open(const char* path, int flags, mode_t mode) override {
    if (fails()) return -1;
    const int file = under_.open(path, flags, mode);
    if (file >= 0) open_.insert(file);
    return file;
  }
  int close(int file) override {
    if (dead_) return errno = EIO, -1;
    if (calls_ == at_ && fault_ == Fault::kill) {
      ++at_;
      struck_ = true;
    }
    const bool failed = fails();
    const int code = errno;
    open_.erase(file);
    const int result = under_.close(file);  // also where it reports an error, as on Linux
    if (failed) errno = code;
    return failed ? -1 : result;
  }
  ssize_t write(int file, const void* from, size_t bytes) override {
    if (fails()) return -1;
    if (now_ && fault_ == Fault::lie) return ssize_t(bytes);
    return under_.write(file, from, now_ && fault_ == Fault::short_write ? (bytes + 1) / 2 : bytes);
  }
  ssize_t pread(int file, void* to, size_t bytes, off_t at) override {
    return fails() ? -1 : under_.pread(file, to, now_ && fault_ == Fault::short_write ? (bytes + 1) / 2 : bytes, at);
  }
  int fsync(int file) override { return fails() ? -1 : under_.fsync(file); }
  int fstat(int file, struct stat* s) override { return fails() ? -1 : under_.fstat(file, s); }
  int lstat(const char* path, struct stat* s) override { return fails() ? -1 : under_.lstat(path, s); }
  int rename(const char* from, const char* to) override { return fails() ? -1 : under_.rename(from, to); }
  int unlink(const char* path) override { return fails() ? -1 : under_.unlink(path); }
  int mkdir(const char* path, mode_t mode) override { return fails() ? -1 : under_.mkdir(path, mode); }
  int rmdir(const char* path) override { return fails() ? -1 : under_.rmdir(path); }
  int list(const char* path, std::vector<std::string>* names) override {
    return fails() ? -1 : under_.list(path, names);
  }
  void forget(int file) override { under_.forget(file); }

 private:
  bool fails() {
    now_ = false;
    if (dead_) return errno = EIO, true;
    if (calls_++ != at_) return false;
    now_ = struck_ = true;
    switch (fault_) {
      case Fault::none:
      case Fault::short_write:
      case Fault::lie:
        return false;
      case Fault::io_error:
        errno = EIO;
        break;
      case Fault::full:
        errno = ENOSPC;
        break;
      case Fault::interrupted:
        errno = EINTR;
        break;
      case Fault::kill:
        dead_ = true;
        throw Killed{};
    }
    return true;
  }

  FileSystem& under_;
  Fault fault_;
  int at_, calls_ = 0;
  bool now_ = false, struck_ = false, dead_ = false;
  std::set<int> open_;
};

}  // namespace agon::testing
