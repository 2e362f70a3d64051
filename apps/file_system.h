#pragma once
#include <sys/stat.h>
#include <sys/types.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"

namespace agon {

/// The system calls that files are read and written with, each as POSIX has it: -1 and errno on failure. A test derives
/// from it to make any single call fail, be interrupted, stop short, lie, or be the last one before a kill.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual int open(const char* path, int flags, mode_t mode);
  virtual int close(int file);
  virtual ssize_t pread(int file, void* to, size_t bytes, off_t at);
  virtual ssize_t write(int file, const void* from, size_t bytes);
  virtual int fsync(int file);
  virtual int fstat(int file, struct stat* s);
  virtual int lstat(const char* path, struct stat* s);
  virtual int rename(const char* from, const char* to);
  virtual int unlink(const char* path);
  virtual int mkdir(const char* path, mode_t mode);
  virtual int rmdir(const char* path);
  /// Replaces `names` by the names in a folder, sorted, without "." and "..".
  virtual int list(const char* path, std::vector<std::string>* names);
  /// Advises the kernel to drop the cached pages of a file, so that reading it again asks the disk.
  virtual void forget(int file);

  static FileSystem& real();
};

/// Throws what a failed call deserves, naming path, call and the text of the errno `code`: UserError where the user can
/// help it (no such file, no space, ...; NoPermission), else Error.
[[noreturn]] void throw_system_error(const std::string& path, const std::string& call, int code);

/// Repeats `call` while it is interrupted; throws throw_system_error() where it fails. Returns what it returned.
template <class Call>
auto system_call(const std::string& path, const char* name, Call&& call) {
  for (;;) {
    const auto result = call();
    if (result >= 0) return result;
    if (errno != EINTR) throw_system_error(path, name, errno);
  }
}

/// A file open for reading; closes itself.
class File {
 public:
  explicit File(std::string path, FileSystem& files = FileSystem::real());
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  ~File();

  const std::string& path() const { return path_; }
  uint64_t bytes() const { return bytes_; }  ///< its size when it was opened
  FileSystem& files() const { return *files_; }
  /// Reads exactly `bytes` from position `at`. UserError where the file ends before.
  void read(uint64_t at, void* to, size_t bytes) const;
  void forget() const { files_->forget(file_); }

 private:
  std::string path_;
  FileSystem* files_;
  int file_;
  uint64_t bytes_ = 0;
};

bool exists(const std::string& path, FileSystem& files = FileSystem::real());  ///< symbolic links are not followed
/// The whole of a small file. UserError when it is larger than `limit` bytes.
std::string read_file(const std::string& path, uint64_t limit, FileSystem& files = FileSystem::real());
void make_folder(const std::string& path, FileSystem& files = FileSystem::real());  ///< with its parents; may exist
/// Makes the names in a folder durable. File systems that cannot sync a folder (EINVAL) are taken to need none.
void sync_folder(const std::string& path, FileSystem& files = FileSystem::real());
std::string folder_of(const std::string& path);  ///< "." where the path has no folder

}  // namespace agon
