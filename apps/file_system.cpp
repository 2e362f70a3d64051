#include "apps/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace agon {

int FileSystem::open(const char* path, int flags, mode_t mode) { return ::open(path, flags, mode); }
int FileSystem::close(int file) { return ::close(file); }
ssize_t FileSystem::pread(int file, void* to, size_t bytes, off_t at) { return ::pread(file, to, bytes, at); }
ssize_t FileSystem::write(int file, const void* from, size_t bytes) { return ::write(file, from, bytes); }
int FileSystem::fsync(int file) { return ::fsync(file); }
int FileSystem::fstat(int file, struct stat* s) { return ::fstat(file, s); }
int FileSystem::lstat(const char* path, struct stat* s) { return ::lstat(path, s); }
int FileSystem::rename(const char* from, const char* to) { return ::rename(from, to); }
int FileSystem::unlink(const char* path) { return ::unlink(path); }
int FileSystem::mkdir(const char* path, mode_t mode) { return ::mkdir(path, mode); }
int FileSystem::rmdir(const char* path) { return ::rmdir(path); }
void FileSystem::forget(int file) { posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED); }

int FileSystem::list(const char* path, std::vector<std::string>* names) {
  DIR* folder = opendir(path);
  if (!folder) return -1;
  names->clear();
  errno = 0;
  while (const dirent* entry = readdir(folder)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names->push_back(name);
    errno = 0;
  }
  const int code = errno;
  closedir(folder);
  std::sort(names->begin(), names->end());
  errno = code;
  return code ? -1 : 0;
}

FileSystem& FileSystem::real() {
  static FileSystem files;
  return files;
}

void throw_system_error(const std::string& path, const std::string& call, int code) {
  const std::string message = text(path, ": ", call, " failed: ", std::strerror(code));
  if (code == EACCES || code == EPERM) throw NoPermission(message);
  for (int users : {ENOENT, ENOTDIR, EISDIR, EROFS, ENOSPC, EDQUOT, EFBIG, ENAMETOOLONG, ELOOP})
    if (code == users) throw UserError(message);
  throw Error(message);
}

File::File(std::string path, FileSystem& files) : path_(std::move(path)), files_(&files) {
  file_ = system_call(path_, "open", [&] { return files.open(path_.c_str(), O_RDONLY | O_CLOEXEC, 0); });
  struct stat s {};
  try {
    system_call(path_, "fstat", [&] { return files.fstat(file_, &s); });
    require(S_ISREG(s.st_mode), path_, ": expected a file, found ", S_ISDIR(s.st_mode) ? "a folder" : "something else");
  } catch (...) {
    files.close(file_);
    throw;
  }
  bytes_ = uint64_t(s.st_size);
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)),
      files_(other.files_),
      file_(std::exchange(other.file_, -1)),
      bytes_(other.bytes_) {}

File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(files_, other.files_);
  std::swap(file_, other.file_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

File::~File() {
  if (file_ >= 0) files_->close(file_);
}

void File::read(uint64_t at, void* to, size_t bytes) const {
  for (size_t done = 0; done < bytes;) {
    char* next = static_cast<char*>(to) + done;
    const ssize_t n =
        system_call(path_, "pread", [&] { return files_->pread(file_, next, bytes - done, off_t(at + done)); });
    require(n > 0, path_, ": ends at byte ", at + done, ", expected at least ", at + bytes, " bytes");
    done += size_t(n);
  }
}

bool exists(const std::string& path, FileSystem& files) {
  struct stat s {};
  return system_call(path, "lstat", [&] {
           if (files.lstat(path.c_str(), &s) == 0) return 1;
           return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
         }) == 1;
}

std::string read_file(const std::string& path, uint64_t limit, FileSystem& files) {
  const File file(path, files);
  require(file.bytes() <= limit, path, ": is ", file.bytes(), " bytes long, expected at most ", limit);
  std::string contents(size_t(file.bytes()), '\0');
  file.read(0, contents.data(), contents.size());
  return contents;
}

void make_folder(const std::string& path, FileSystem& files) {
  struct stat s {};
  if (files.mkdir(path.c_str(), 0777) == 0) return sync_folder(folder_of(path), files);
  if (errno == EEXIST) {
    // Following a symbolic link to a folder, as the user meant it.
    const std::string inside = path + "/.";
    system_call(path, "lstat", [&] { return files.lstat(inside.c_str(), &s); });
    return;
  }
  if (errno == ENOENT && folder_of(path) != path) make_folder(folder_of(path), files);
  if (system_call(path, "mkdir", [&] { return files.mkdir(path.c_str(), 0777) == 0 || errno == EEXIST ? 0 : -1; }) == 0)
    sync_folder(folder_of(path), files);
}

void sync_folder(const std::string& path, FileSystem& files) {
  const int folder =
      system_call(path, "open", [&] { return files.open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0); });
  int code = 0;
  do code = files.fsync(folder) == 0 ? 0 : errno;
  while (code == EINTR);
  files.close(folder);
  if (code && code != EINVAL) throw_system_error(path, "fsync", code);
}

std::string folder_of(const std::string& path) {
  const size_t last = path.find_last_not_of('/');
  if (last == std::string::npos) return path.empty() ? "." : "/";
  const size_t slash = path.find_last_of('/', last);
  if (slash == std::string::npos) return ".";
  const size_t end = path.find_last_not_of('/', slash);
  return end == std::string::npos ? "/" : path.substr(0, end + 1);
}

}  // namespace agon
