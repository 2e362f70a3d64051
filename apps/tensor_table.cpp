#include "apps/tensor_table.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/safetensors_header.h"
#include "core/error.h"

namespace agon {

std::string name_of_part(const std::string& tensor, const Shape& whole, int64_t first, int64_t count) {
  if (first == 0 && count == whole.size()) return tensor;
  return text(tensor, '[', first, ':', first + count, ']');
}

std::optional<std::pair<int64_t, int64_t>> gap(const StoredTensor& tensor) {
  int64_t end = 0;
  for (const StoredPart& part : tensor.parts) {
    if (part.first > end) return std::pair(end, part.first);
    end = std::max(end, part.first + part.count);
  }
  if (end < tensor.shape.size()) return std::pair(end, tensor.shape.size());
  return {};
}

nlohmann::ordered_json to_json(const TensorTable& table) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, tensor] : table) {
    auto& entry = json[name] = {{"dtype", name_of(tensor.dtype)}, {"shape", extents_of(tensor.shape)}};
    auto& parts = entry["parts"] = nlohmann::ordered_json::array();
    for (const StoredPart& part : tensor.parts)
      parts.push_back({{"file", part.file}, {"first", part.first}, {"count", part.count}});
  }
  return json;
}

TensorTable table_from_json(const nlohmann::ordered_json& json) {
  TensorTable table;
  for (const auto& [name, entry] : json.items()) try {
      StoredTensor& tensor = table[name];
      tensor.dtype = dtype_named(entry.at("dtype").get<std::string>());
      tensor.shape = shape_of(entry.at("shape").get<std::vector<int64_t>>());
      const int64_t all = tensor.shape.size();
      for (const auto& part : entry.at("parts")) {
        const auto first = part.at("first").get<int64_t>(), count = part.at("count").get<int64_t>();
        require(first >= 0 && count >= 0 && count <= all && first <= all - count, "found a part of ", count,
                " elements from ", first, " of ", all);
        tensor.parts.push_back({part.at("file").get<std::string>(), first, count});
      }
      require(std::ranges::is_sorted(tensor.parts, {}, &StoredPart::first), "expected its parts in order");
      const auto missing = gap(tensor);
      require(!missing, "elements ", missing ? missing->first : 0, " to ", missing ? missing->second : 0, " of ",
              tensor.shape, " are in no file");
    } catch (const UserError& e) { throw UserError(text("tensor ", in_quotes(name), ": ", e.what())); }
  return table;
}

Shape shape_of(const std::vector<int64_t>& extents) {
  require(extents.size() <= 4, "found ", extents.size(), " extents, expected at most 4");
  int64_t bytes = 8;  // of the widest dtype
  for (const int64_t n : extents)
    require(n >= 0 && n < int64_t(1) << 48 && !__builtin_mul_overflow(bytes, n, &bytes), "found the extent ", n,
            " in a shape, which is negative or has more elements than can be counted");
  const auto at = [&](size_t i) { return extents[i]; };
  switch (extents.size()) {
    case 0:
      return {};
    case 1:
      return {at(0)};
    case 2:
      return {at(0), at(1)};
    case 3:
      return {at(0), at(1), at(2)};
    default:
      return {at(0), at(1), at(2), at(3)};
  }
}

std::vector<int64_t> extents_of(const Shape& shape) {
  std::vector<int64_t> extents;
  for (int i = 0; i < shape.rank(); ++i) extents.push_back(shape[i]);
  return extents;
}

DType dtype_named(const std::string& name) {
  for (const DType t : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32, DType::u8})
    if (name == name_of(t)) return t;
  throw UserError(text("found the dtype ", in_quotes(name), ", expected f64, f32, bf16, f16, i32 or u8"));
}

}  // namespace agon
