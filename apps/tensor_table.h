#pragma once
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/dtype.h"
#include "core/shape.h"

namespace agon {

/// Elements first ... first + count, in row-major order, of a tensor, and the file that holds them.
struct StoredPart {
  std::string file;
  int64_t first = 0, count = 0;
  bool operator==(const StoredPart&) const = default;
};

/// Where the elements of a tensor are. Parts may overlap; then they hold the same values.
struct StoredTensor {
  DType dtype = DType::f32;
  Shape shape;
  std::vector<StoredPart> parts;  // by first
  bool operator==(const StoredTensor&) const = default;
};

using TensorTable = std::map<std::string, StoredTensor>;
/// A table for each kind of tensors a checkpoint has: "model" and "optimizer".
using TensorTables = std::map<std::string, TensorTable>;
inline constexpr const char* kTensorKinds[] = {"model", "optimizer"};

/// What a shard calls a part: the tensor's name, where it is not the whole tensor with the range in brackets, as Python
/// would cut it out of the flat tensor: "embed.weight[512:1024]".
std::string name_of_part(const std::string& tensor, const Shape& whole, int64_t first, int64_t count);

/// The first elements, [begin, end), that no part holds.
std::optional<std::pair<int64_t, int64_t>> gap(const StoredTensor& tensor);

/// {NAME: {"dtype": "f32", "shape": [...], "parts": [{"file": NAME, "first": N, "count": N}, ...]}, ...}
nlohmann::ordered_json to_json(const TensorTable& table);
/// UserError naming the tensor where a part lies outside of it or elements are in no file. Json::exception where
/// members are missing or of other types.
TensorTable table_from_json(const nlohmann::ordered_json& json);

Shape shape_of(const std::vector<int64_t>& extents);  ///< UserError for more than 4, negative ones or too many elements
std::vector<int64_t> extents_of(const Shape& shape);
DType dtype_named(const std::string& name);  ///< as name_of() names it; UserError where it is none

}  // namespace agon
