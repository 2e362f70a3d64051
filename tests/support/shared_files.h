#pragma once
#include <mutex>

#include "apps/file_system.h"

namespace agon::testing {

/// Lets ranks that are threads use one file system: a call at a time.
class SharedFiles : public FileSystem {
  template <class Call>
  auto locked(Call&& call) {
    const std::lock_guard lock(mutex_);
    return call();
  }

 public:
  explicit SharedFiles(FileSystem& under) : under_(under) {}
  int open(const char* path, int flags, mode_t mode) override {
    return locked([&] { return under_.open(path, flags, mode); });
  }
  int close(int file) override {
    return locked([&] { return under_.close(file); });
  }
  ssize_t pread(int file, void* to, size_t bytes, off_t at) override {
    return locked([&] { return under_.pread(file, to, bytes, at); });
  }
  ssize_t write(int file, const void* from, size_t bytes) override {
    return locked([&] { return under_.write(file, from, bytes); });
  }
  int fsync(int file) override {
    return locked([&] { return under_.fsync(file); });
  }
  int fstat(int file, struct stat* s) override {
    return locked([&] { return under_.fstat(file, s); });
  }
  int lstat(const char* path, struct stat* s) override {
    return locked([&] { return under_.lstat(path, s); });
  }
  int rename(const char* from, const char* to) override {
    return locked([&] { return under_.rename(from, to); });
  }
  int unlink(const char* path) override {
    return locked([&] { return under_.unlink(path); });
  }
  int mkdir(const char* path, mode_t mode) override {
    return locked([&] { return under_.mkdir(path, mode); });
  }
  int rmdir(const char* path) override {
    return locked([&] { return under_.rmdir(path); });
  }
  int list(const char* path, std::vector<std::string>* names) override {
    return locked([&] { return under_.list(path, names); });
  }
  void forget(int) override {}

 private:
  FileSystem& under_;
  std::mutex mutex_;
};

}  // namespace agon::testing
