#include "apps/atomic_file.h"

#include <fcntl.h>

#include <vector>

#include "core/error.h"

namespace agon {

FileWriter::FileWriter(std::string path, FileSystem& files) : path_(std::move(path)), files_(files) {
  const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
  file_ = system_call(path_, "open", [&] { return files_.open(path_.c_str(), flags, 0666); });
}

FileWriter::~FileWriter() {
  if (file_ >= 0) files_.close(file_);
  if (!finished_) files_.unlink(path_.c_str());
}

void FileWriter::write(const void* data, size_t bytes) {
  checksum_.update(data, bytes);
  written_.bytes += bytes;
  for (size_t done = 0; done < bytes;) {
    const char* next = static_cast<const char*>(data) + done;
    const ssize_t n = system_call(path_, "write", [&] { return files_.write(file_, next, bytes - done); });
    check(n > 0, path_, ": write accepted none of ", bytes - done, " bytes");
    done += size_t(n);
  }
}

void FileWriter::close() {
  // On Linux the descriptor is gone even when close() is interrupted: never again, and EINTR is success.
  const int code = files_.close(file_) == 0 ? 0 : errno;
  file_ = -1;
  if (code && code != EINTR) throw_system_error(path_, "close", code);
}

FileDigest FileWriter::finish() {
  system_call(path_, "fsync", [&] { return files_.fsync(file_); });
  close();
  written_.checksum = checksum_.value();
  const FileDigest found = digest_file(path_, files_);
  check(found == written_, path_, ": the disk did not keep what was written: found ", found.bytes,
        " bytes with checksum ", hexadecimal(found.checksum), ", expected ", written_.bytes, " with ",
        hexadecimal(written_.checksum));
  finished_ = true;
  return written_;
}

void write_atomically(const std::string& path, const std::function<void(FileWriter&)>& body, FileSystem& files) {
  const std::string folder = folder_of(path), aside = folder + "/." + path.substr(path.find_last_of('/') + 1) + ".tmp";
  {
    FileWriter file(aside, files);
    body(file);
    file.finish();
  }
  try {
    system_call(path, "rename", [&] { return files.rename(aside.c_str(), path.c_str()); });
  } catch (...) {
    files.unlink(aside.c_str());
    throw;
  }
  sync_folder(folder, files);
}

void write_atomically(const std::string& path, std::string_view contents, FileSystem& files) {
  write_atomically(
      path, [&](FileWriter& file) { file.write(contents.data(), contents.size()); }, files);
}

FileDigest digest_file(const std::string& path, FileSystem& files) {
  const File file(path, files);
  file.forget();
  std::vector<char> buffer(size_t(std::min<uint64_t>(file.bytes(), 1 << 20)));
  Checksum checksum;
  for (uint64_t at = 0; at < file.bytes();) {
    const size_t n = size_t(std::min<uint64_t>(buffer.size(), file.bytes() - at));
    file.read(at, buffer.data(), n);
    checksum.update(buffer.data(), n);
    at += n;
  }
  return {file.bytes(), checksum.value()};
}

}  // namespace agon
