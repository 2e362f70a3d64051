#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "apps/checksum.h"
#include "apps/file_system.h"

namespace agon {

struct FileDigest {
  uint64_t bytes = 0, checksum = 0;  // XXH64
  bool operator==(const FileDigest&) const = default;
};

/// Writes a new file from the beginning. Unless finish() succeeded the destructor removes it.
class FileWriter {
 public:
  explicit FileWriter(std::string path, FileSystem& files = FileSystem::real());
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(const void* data, size_t bytes);
  /// Makes the contents durable, reads them back and compares size and checksum: a disk that reported success and did
  /// something else is found here. Error naming path, call and reason.
  FileDigest finish();

 private:
  void close();

  std::string path_;
  FileSystem& files_;
  int file_;
  FileDigest written_;
  Checksum checksum_;
  bool finished_ = false;
};

/// Replaces the file at `path` by what `body` writes, or leaves it as it was: written aside as `.NAME.tmp`, synced,
/// read back, renamed, and the folder synced. Errors name path, call and reason; the file aside is removed.
void write_atomically(const std::string& path, const std::function<void(FileWriter&)>& body,
                      FileSystem& files = FileSystem::real());
void write_atomically(const std::string& path, std::string_view contents, FileSystem& files = FileSystem::real());

/// Size and checksum of a file as it is on the disk.
FileDigest digest_file(const std::string& path, FileSystem& files = FileSystem::real());

}  // namespace agon
