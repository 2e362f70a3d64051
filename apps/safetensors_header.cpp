#include "apps/safetensors_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace agon {

namespace {

using Json = nlohmann::json;

constexpr struct {
  DType dtype;
  const char* name;
} kDTypes[] = {{DType::f64, "F64"}, {DType::f32, "F32"}, {DType::bf16, "BF16"},
               {DType::f16, "F16"}, {DType::i32, "I32"}, {DType::u8, "U8"}};
constexpr size_t kMaxName = 1024, kMaxTensors = 1'000'000;
constexpr uint64_t kMaxExtent = (uint64_t(1) << 48) - 1;  // the reference's schema

/// What is wrong with a tensor's name; empty when nothing is.
std::string fault_of_name(const std::string& name) {
  if (name.empty()) return "an empty name";
  if (name.size() > kMaxName) return text("a name of ", name.size(), " bytes, expected at most ", kMaxName);
  if (name.find('\0') != std::string::npos) return "a name with a NUL in it";
  if (name.find("..") != std::string::npos) return "a name with '..' in it";
  return "";
}

/// Reads the header event by event. Everything not expected is refused on the spot, so nesting cannot grow and no tree
/// of a hostile header is ever built.
class Reader final : public nlohmann::json_sax<Json> {
 public:
  explicit Reader(const std::string& path) : path_(path) {}
  SafetensorsHeader header;

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t v) override { return unexpected(text("the number ", v)); }
  bool number_float(number_float_t, const string_t& s) override {
    return unexpected(text("the number ", in_quotes(s)));
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool start_object(size_t) override {
    if (place_ == Place::outside) return go(Place::root);
    if (place_ == Place::root && name_ == "__metadata__") return go(Place::metadata);
    if (place_ != Place::root) return unexpected("an object");
    header.tensors.emplace_back().name = name_;
    if (header.tensors.size() > kMaxTensors) fail(text("more than ", kMaxTensors, " tensors"));
    has_dtype_ = has_shape_ = has_offsets_ = false;
    return go(Place::tensor);
  }
  bool end_object() override {
    if (place_ == Place::tensor) {
      if (!has_dtype_ || !has_shape_ || !has_offsets_)
        fail(text(where(), " has no \"", !has_dtype_ ? "dtype" : !has_shape_ ? "shape" : "data_offsets", '"'));
    }
    return go(place_ == Place::root ? Place::outside : Place::root);
  }
  bool key(string_t& k) override {
    key_ = k;
    if (place_ == Place::root) {
      name_ = k;
      if (k == "__metadata__" && std::exchange(has_metadata_, true)) fail("\"__metadata__\" twice");
      if (const std::string fault = fault_of_name(k); !fault.empty()) fail(fault);
    } else if (place_ == Place::metadata) {
      if (header.metadata.count(k)) fail(text("the metadata ", in_quotes(k), " twice"));
    } else {
      bool* seen = k == "dtype"          ? &has_dtype_
                   : k == "shape"        ? &has_shape_
                   : k == "data_offsets" ? &has_offsets_
                                         : nullptr;
      if (!seen) fail(text(where(), " has a field ", in_quotes(k), ", expected dtype, shape and data_offsets"));
      if (std::exchange(*seen, true)) fail(text(where(), " has ", in_quotes(k), " twice"));
    }
    return true;
  }
  bool string(string_t& s) override {
    if (place_ == Place::metadata) return header.metadata.emplace(key_, s), true;
    if (place_ != Place::tensor || key_ != "dtype") return unexpected(text("the string ", in_quotes(s)));
    const auto* found =
        std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const auto& d) { return d.name == s; });
    if (found == std::end(kDTypes))
      fail(text(where(), " has the dtype ", in_quotes(s), ", expected F64, F32, BF16, F16, I32 or U8"));
    header.tensors.back().dtype = found->dtype;
    return true;
  }
  bool start_array(size_t) override {
    if (place_ != Place::tensor || key_ == "dtype") return unexpected("a list");
    numbers_.clear();
    return go(Place::list);
  }
  bool number_unsigned(number_unsigned_t v) override {
    if (place_ != Place::list) return unexpected(text("the number ", v));
    if (key_ == "shape" && numbers_.size() == 4) fail(text(where(), " has more than 4 extents"));
    if (key_ == "shape" && v > kMaxExtent)
      fail(text(where(), " has the extent ", v, ", expected at most ", kMaxExtent));
    if (key_ == "data_offsets" && numbers_.size() == 2) fail(text(where(), " has more than 2 data_offsets"));
    numbers_.push_back(v);
    return true;
  }
  bool end_array() override {
    TensorEntry& t = header.tensors.back();
    if (key_ == "shape") return set_shape(t), go(Place::tensor);
    if (numbers_.size() != 2) fail(text(where(), " has ", numbers_.size(), " data_offsets, expected 2"));
    t.begin = numbers_[0];
    t.end = numbers_[1];
    return go(Place::tensor);
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail(text("not valid JSON at byte ", position, " of the header"));
  }

 private:
  enum class Place { outside, root, metadata, tensor, list };

  [[noreturn]] void fail(const std::string& what) const { throw UserError(text(path_, ": bad header: ", what)); }
  [[noreturn]] bool unexpected(const std::string& what) const {
    if (place_ == Place::outside) fail(text(what, ", expected an object"));
    if (place_ == Place::root) fail(text(in_quotes(name_), " is ", what, ", expected an object"));
    if (place_ == Place::metadata) fail(text("the metadata ", in_quotes(key_), " is ", what, ", expected a string"));
    fail(text(where(), " has ", what, place_ == Place::list ? " in its " : " as its ", in_quotes(key_)));
  }
  std::string where() const { return text("tensor ", in_quotes(name_)); }
  bool go(Place place) { return place_ = place, true; }

  void set_shape(TensorEntry& t) {
    uint64_t bytes = 8;  // the widest dtype: `dtype` may come after `shape`
    for (uint64_t n : numbers_)
      if (__builtin_mul_overflow(bytes, n, &bytes) || bytes >> 63)
        fail(text(where(), " has a shape too large to count"));
    const auto dim = [&](size_t i) { return int64_t(numbers_[i]); };
    switch (numbers_.size()) {
      case 0:
        t.shape = {};
        break;
      case 1:
        t.shape = {dim(0)};
        break;
      case 2:
        t.shape = {dim(0), dim(1)};
        break;
      case 3:
        t.shape = {dim(0), dim(1), dim(2)};
        break;
      default:
        t.shape = {dim(0), dim(1), dim(2), dim(3)};
    }
  }

  const std::string& path_;
  Place place_ = Place::outside;
  std::string name_, key_;
  std::vector<uint64_t> numbers_;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false, has_metadata_ = false;
};

/// The tensors must tile the data: no holes, no overlaps, nothing before or after them.
void check_layout(const std::vector<TensorEntry>& tensors, uint64_t data_bytes, const std::string& path) {
  std::vector<const TensorEntry*> order;
  for (const TensorEntry& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(),
            [](auto* a, auto* b) { return std::tie(a->begin, a->end) < std::tie(b->begin, b->end); });
  uint64_t at = 0;
  for (const TensorEntry* t : order) {
    const std::string where = text(path, ": bad header: tensor ", in_quotes(t->name));
    const uint64_t bytes = uint64_t(t->shape.size() * size_of(t->dtype));
    require(t->begin == at, where, " begins at byte ", t->begin, " of the data, expected ", at);
    require(t->end >= t->begin && t->end - t->begin == bytes, where, " has the data_offsets [", t->begin, ", ", t->end,
            "], expected ", bytes, " bytes for ", t->dtype, ' ', t->shape);
    require(t->end <= data_bytes, path, ": the data of tensor ", in_quotes(t->name), " ends at byte ", t->end,
            ", found only ", data_bytes, " bytes of data: the file is truncated");
    at = t->end;
  }
  require(at == data_bytes, path, ": found ", data_bytes, " bytes of data, expected ", at, " by the header");
}

}  // namespace

SafetensorsHeader parse_header(std::string_view json, uint64_t data_bytes, const std::string& path) {
  require(!json.empty() && json.front() == '{', path, ": bad header: expected it to begin with '{'");
  Reader reader(path);
  Json::sax_parse(json.begin(), json.end(), &reader);
  std::vector<TensorEntry>& tensors = reader.header.tensors;
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  for (size_t i = 1; i < tensors.size(); ++i)
    require(tensors[i].name != tensors[i - 1].name, path, ": bad header: tensor ", in_quotes(tensors[i].name),
            " twice");
  check_layout(tensors, data_bytes, path);
  return std::move(reader.header);
}

std::string make_header(std::vector<TensorEntry>& tensors, const Metadata& metadata) try {
  std::sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return size_of(a.dtype) != size_of(b.dtype) ? size_of(a.dtype) > size_of(b.dtype) : a.name < b.name;
  });
  std::string json = "{\"__metadata__\":" + Json(metadata).dump();
  uint64_t at = 0;
  for (TensorEntry& t : tensors) {
    const std::string fault = t.name == "__metadata__" ? "the reserved name __metadata__" : fault_of_name(t.name);
    check(fault.empty(), "tensor ", in_quotes(t.name), " has ", fault);
    t.begin = at;
    t.end = at += uint64_t(t.shape.size() * size_of(t.dtype));
    const auto* known =
        std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const auto& d) { return d.dtype == t.dtype; });
    json += ',' + Json(t.name).dump() + ":{\"dtype\":\"" + known->name + "\",\"shape\":[";
    for (int i = 0; i < t.shape.rank(); ++i) json += text(i ? "," : "", t.shape[i]);
    json += text("],\"data_offsets\":[", t.begin, ',', t.end, "]}");
  }
  json += '}';
  json.resize((json.size() + 7) / 8 * 8, ' ');
  check(json.size() <= kMaxHeaderBytes, "a header of ", json.size(), " bytes, expected at most ", kMaxHeaderBytes);
  return json;
} catch (const Json::type_error&) { throw Error("a tensor's name or metadata is not valid UTF-8"); }

std::string in_quotes(std::string_view name) {
  std::string shown = "'";
  for (char c : name.substr(0, 120)) {
    const auto u = static_cast<unsigned char>(c);
    if (u >= 32 && u != 127)
      shown += c;
    else
      shown += text("\\x", "0123456789abcdef"[u >> 4], "0123456789abcdef"[u & 15]);
  }
  return shown + (name.size() > 120 ? "...'" : "'");
}

}  // namespace agon
