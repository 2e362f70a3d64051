#include "apps/text_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/error.h"

namespace agon {

std::string read_text_file(const std::string& path, int64_t most) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  require(status.type() != std::filesystem::file_type::not_found, path, ": no such file");
  require(!std::filesystem::is_directory(status), path, ": expected a file, found a folder");
  require(!error, path, ": ", error.message());
  require(std::filesystem::is_regular_file(status), path, ": expected a regular file, found a device, pipe or socket");
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  require(bool(in), path, ": cannot be read: ", std::strerror(errno));
  const auto size = std::filesystem::file_size(path, error);
  require(!error, path, ": ", error.message());
  require(most == 0 || size <= uint64_t(most), path, ": ", size, " bytes, expected at most ", most);
  std::string content(size, '\0');
  in.read(content.data(), std::streamsize(size));
  require(uint64_t(in.gcount()) == size, path, ": ", size, " bytes expected, but reading stopped after ", in.gcount());
  return content;
}

}  // namespace agon
