#include "apps/safetensors.h"

#include <algorithm>
#include <bit>
#include <set>

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

void SafetensorsFile::read(const TensorEntry& entry, const Tensor& into) const {
  file_.read(data_ + entry.begin, const_cast<void*>(into.address()), size_t(entry.end - entry.begin));
}

Tensor SafetensorsFile::load(const std::string& name) const {
  const TensorEntry& entry = at(name);
  Tensor t(entry.shape, entry.dtype);
  read(entry, t);
  return t;
}

Tensor SafetensorsFile::load(const std::string& name, DType dtype) const {
  Tensor t = load(name);
  return t.dtype() == dtype ? t : converted(t, dtype);
}

const TensorEntry& SafetensorsFile::match(const std::string& name, const Tensor& into, bool convert) const {
  check(bool(into), "loading tensor ", in_quotes(name), " into none");
  const TensorEntry* entry = find(name);
  require(entry, path(), ": has no tensor ", in_quotes(name), ", expected one of ", into.dtype(), ' ', into.shape());
  require(entry->shape == into.shape(), path(), ": tensor ", in_quotes(name), " has shape ", entry->shape,
          ", expected ", into.shape());
  require(convert || entry->dtype == into.dtype(), path(), ": tensor ", in_quotes(name), " is ", entry->dtype,
          ", expected ", into.dtype());
  return *entry;
}

void SafetensorsFile::load_into(const std::string& name, const Tensor& into, bool convert) const {
  const TensorEntry& entry = match(name, into, convert);
  if (into.device().kind == Device::cpu && entry.dtype == into.dtype()) return read(entry, into);
  copy(into, load(name));
}

void SafetensorsFile::load_all(std::span<const NamedTensor> into) const {
  std::set<std::string> expected;
  for (const NamedTensor& t : into) {
    match(t.name, t.tensor, false);
    check(expected.insert(t.name).second, "loading tensor ", in_quotes(t.name), " twice");
  }
  for (const TensorEntry& t : tensors_)
    require(expected.count(t.name), path(), ": found tensor ", in_quotes(t.name), " of ", t.dtype, ' ', t.shape,
            ", expected no tensor of that name");
  for (const NamedTensor& t : into) load_into(t.name, t.tensor);
}

void write_safetensors(FileWriter& file, std::span<const NamedTensor> tensors, const Metadata& metadata) {
  std::map<std::string, const Tensor*> by_name;
  std::vector<TensorEntry> entries;
  for (const NamedTensor& t : tensors) {
    check(bool(t.tensor), "tensor ", in_quotes(t.name), " is none");
    check(by_name.emplace(t.name, &t.tensor).second, "tensor ", in_quotes(t.name), " twice");
    entries.push_back({t.name, t.tensor.dtype(), t.tensor.shape()});
  }
  Metadata all = metadata;
  all.emplace("format", "pt");
  const std::string header = make_header(entries, all);
  const uint64_t length = header.size();
  file.write(&length, sizeof length);
  file.write(header.data(), header.size());
  for (const TensorEntry& entry : entries) {
    const Tensor& t = *by_name.at(entry.name);
    if (t.bytes() == 0) continue;
    if (t.device().kind == Device::cpu) {
      file.write(t.address(), size_t(t.bytes()));
    } else {
      const Tensor on_host(t.shape(), t.dtype());
      copy(on_host, t);
      file.write(on_host.address(), size_t(t.bytes()));
    }
  }
}

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors, const Metadata& metadata,
                       FileSystem& files) {
  write_atomically(
      path, [&](FileWriter& file) { write_safetensors(file, tensors, metadata); }, files);
}

}  // namespace agon
