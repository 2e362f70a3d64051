#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/shape.h"

namespace agon {

/// What the header of a safetensors file says of one tensor.
struct TensorEntry {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  uint64_t begin = 0, end = 0;  // bytes, from the start of the data
};

using Metadata = std::map<std::string, std::string>;

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // sorted by name
  Metadata metadata;
};

/// The reference caps headers at this many bytes.
inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;

/// Checks and reads the JSON text of a header that `data_bytes` bytes of data follow. UserError that begins with
/// `path`.
SafetensorsHeader parse_header(std::string_view json, uint64_t data_bytes, const std::string& path);

/// Places the tensors (by alignment of the dtype, largest first, then by name; sorts them so and sets begin and end)
/// and returns the JSON text, padded with spaces so that data after it and its 8 bytes of length starts at a multiple
/// of 8. Names must satisfy what parse_header asks of them (Error).
std::string make_header(std::vector<TensorEntry>& tensors, const Metadata& metadata);

/// A name as it may be shown: in quotes, control characters as \xNN, cut after 120 bytes.
std::string in_quotes(std::string_view name);

}  // namespace agon
