#include "apps/safetensors.h"

#include <algorithm>
#include <bit>

#include "core/copy.h"

namespace agon {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

SafetensorsFile SafetensorsFile::open(const std::string& path, FileSystem& files) {
  SafetensorsFile f{File(path, files)};
  const uint64_t bytes = f.file_.bytes();
  require(bytes >= 8, path, ": found ", bytes, " bytes, expected a safetensors file of at least 8");
  uint64_t length = 0;
  f.file_.read(0, &length, sizeof length);
  require(length <= kMaxHeaderBytes, path, ": claims a header of ", length, " bytes, expected at most ",
          kMaxHeaderBytes, "; not a safetensors file?");
  require(length <= bytes - 8, path, ": claims a header of ", length, " bytes, found only ", bytes - 8,
          " after its length");
  std::string json(size_t(length), '\0');
  f.file_.read(8, json.data(), json.size());
  f.data_ = 8 + length;
  SafetensorsHeader header = parse_header(json, bytes - f.data_, path);
  f.tensors_ = std::move(header.tensors);
  f.metadata_ = std::move(header.metadata);
  return f;
}

const TensorEntry* SafetensorsFile::find(const std::string& name) const {
  const auto i = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                  [](const TensorEntry& t, const std::string& n) { return t.name < n; });
  return i != tensors_.end() && i->name == name ? &*i : nullptr;
}

const TensorEntry& SafetensorsFile::at(const std::string& name) const {
  const TensorEntry* entry = find(name);
  require(entry, path(), ": has no tensor ", in_quotes(name), " among its ", tensors_.size());
  return *entry;
}

void SafetensorsFile::read(const TensorEntry& entry, int64_t first, int64_t count, void* to) const {
  const int64_t each = size_of(entry.dtype);
  file_.read(data_ + entry.begin + uint64_t(first * each), to, size_t(count * each));
}

Tensor SafetensorsFile::load(const std::string& name) const {
  const TensorEntry& entry = at(name);
  Tensor t(entry.shape, entry.dtype);
  read(entry, 0, t.size(), t.address());
  return t;
}

Tensor SafetensorsFile::load(const std::string& name, DType dtype) const {
  Tensor t = load(name);
  return t.dtype() == dtype ? t : converted(t, dtype);
}

void write_safetensors(FileWriter& file, std::span<const TensorSlice> slices, const Metadata& metadata) {
  std::map<std::string, const TensorSlice*> by_name;
  std::vector<TensorEntry> entries;
  for (const TensorSlice& s : slices) {
    check(bool(s.tensor), "tensor ", in_quotes(s.name), " is none");
    check(by_name.emplace(s.name, &s).second, "tensor ", in_quotes(s.name), " twice");
    entries.push_back({s.name, s.tensor.dtype(), s.shape});
  }
  Metadata all = metadata;
  all.emplace("format", "pt");
  const std::string header = make_header(entries, all);
  const uint64_t length = header.size();
  file.write(&length, sizeof length);
  file.write(header.data(), header.size());
  Tensor from, here;  // slices of one tensor follow each other: a tensor crosses once
  for (const TensorEntry& entry : entries) {
    const TensorSlice& s = *by_name.at(entry.name);
    if (entry.begin == entry.end) continue;
    if (from.address() != s.tensor.address()) here = on_host(from = s.tensor);
    file.write(static_cast<const char*>(here.address()) + s.first * size_of(entry.dtype),
               size_t(entry.end - entry.begin));
  }
}

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors, const Metadata& metadata,
                       FileSystem& files) {
  std::vector<TensorSlice> slices;
  for (const NamedTensor& t : tensors) slices.push_back({t.name, t.tensor, 0, t.tensor.shape()});
  write_atomically(
      path, [&](FileWriter& file) { write_safetensors(file, slices, metadata); }, files);
}

}  // namespace agon
