#pragma once
#include <cstdint>
#include <string>

namespace agon {

/// A regular file's content. Throws UserError naming the file when it is missing, a folder or device, unreadable, or
/// larger than `most` bytes (0: no limit).
std::string read_text_file(const std::string& path, int64_t most = 0);

}  // namespace agon
