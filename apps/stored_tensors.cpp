#include "apps/stored_tensors.h"

#include <algorithm>
#include <map>

#include "core/copy.h"
#include "distributed/together.h"

namespace agon {

StoredTensors::StoredTensors(SafetensorsFile file) : path_(file.path()) {
  tensors_ = file.tensors();
  files_.push_back(std::move(file));
  for (const TensorEntry& entry : files_[0].tensors()) runs_.push_back({{0, entry.shape.size(), 0, &entry, 0}});
}

StoredTensors::StoredTensors(const std::string& folder, const TensorTable& table, FileSystem& files)
    : path_(folder + "/manifest.json") {
  std::map<std::string, size_t> number;
  for (const auto& [name, tensor] : table)
    for (const StoredPart& part : tensor.parts) number.emplace(part.file, 0);
  for (auto& [name, at] : number) {
    at = files_.size();
    files_.push_back(SafetensorsFile::open(folder + '/' + name, files));
  }
  for (const auto& [name, tensor] : table) {
    tensors_.push_back({name, tensor.dtype, tensor.shape, 0, uint64_t(tensor.shape.size() * size_of(tensor.dtype))});
    std::vector<Run>& runs = runs_.emplace_back();
    int64_t end = 0;
    for (const StoredPart& part : tensor.parts) {
      const SafetensorsFile& file = files_[number.at(part.file)];
      const TensorEntry& entry = file.at(name_of_part(name, tensor.shape, part.first, part.count));
      require(entry.dtype == tensor.dtype && entry.shape.size() == part.count, file.path(), ": tensor ",
              in_quotes(entry.name), " is ", entry.dtype, ' ', entry.shape, ", expected ", part.count, " of ",
              tensor.dtype, " by the manifest");
      const int64_t until = part.first + part.count;
      if (until <= end) continue;
      runs.push_back({end, until, number.at(part.file), &entry, end - part.first});
      end = until;
    }
    check(!gap(tensor), "tensor ", in_quotes(name), ": a table with a gap");
  }
}

const TensorEntry* StoredTensors::find(const std::string& name) const {
  const auto i = std::ranges::lower_bound(tensors_, name, {}, &TensorEntry::name);
  return i != tensors_.end() && i->name == name ? &*i : nullptr;
}

size_t StoredTensors::match(const TensorPart& part, bool convert) const {
  const TensorEntry* entry = find(part.name);
  const DType dtype = part.tensor.dtype();
  require(entry, path_, ": has no tensor ", in_quotes(part.name), ", expected one of ", dtype, ' ', *part.whole);
  require(entry->shape == *part.whole, path_, ": tensor ", in_quotes(part.name), " has shape ", entry->shape,
          ", expected ", *part.whole);
  require(convert || entry->dtype == dtype, path_, ": tensor ", in_quotes(part.name), " is ", entry->dtype,
          ", expected ", dtype);
  return size_t(entry - tensors_.data());
}

void StoredTensors::read(size_t tensor, int64_t first, int64_t count, void* to) const {
  const std::vector<Run>& runs = runs_[tensor];
  const int64_t each = size_of(tensors_[tensor].dtype), end = first + count;
  auto run = std::ranges::upper_bound(runs, first, {}, &Run::end);
  for (int64_t at = first; at < end; ++run) {
    const int64_t n = std::min(run->end, end) - at;
    files_[run->file].read(*run->entry, run->skip + at - run->begin, n, static_cast<char*>(to) + (at - first) * each);
    at += n;
  }
}

void StoredTensors::fill(size_t tensor, const TensorPart& into) const {
  Tensor to = into.tensor;
  const DType dtype = tensors_[tensor].dtype;
  const bool direct = to.device().kind == Device::cpu && to.dtype() == dtype;
  Tensor read_to = direct ? to : Tensor(to.shape(), dtype);
  read(tensor, into.first, to.size(), read_to.address());
  if (!direct) copy(to, read_to);
}

std::vector<StoredTensors::Matched> StoredTensors::match(std::span<const TensorPart> into) const {
  std::vector<Matched> all;
  for (const TensorPart& t : into) {
    TensorPart part = resolved(t);
    const size_t tensor = match(part, false);
    all.push_back({tensor, std::move(part)});
  }
  return all;
}

void StoredTensors::refuse_unnamed(const std::vector<bool>& named) const {
  for (size_t i = 0; i < tensors_.size(); ++i)
    require(named[i], path_, ": found tensor ", in_quotes(tensors_[i].name), " of ", tensors_[i].dtype, ' ',
            tensors_[i].shape, ", expected no tensor of that name");
}

Tensor StoredTensors::load(const std::string& name) const {
  const TensorEntry* entry = find(name);
  require(entry, path_, ": has no tensor ", in_quotes(name), " among its ", tensors_.size());
  const Tensor t(entry->shape, entry->dtype);
  load_into(name, t);
  return t;
}

void StoredTensors::load_into(const std::string& name, const Tensor& into, bool convert) const {
  load_into(TensorPart{name, into}, convert);
}

void StoredTensors::load_into(const TensorPart& into, bool convert) const {
  const TensorPart part = resolved(into);
  fill(match(part, convert), part);
}

void StoredTensors::load(std::span<const TensorPart> into) const {
  for (const auto& [tensor, part] : match(into)) fill(tensor, part);
}

void StoredTensors::load_all(std::span<const NamedTensor> into) const {
  std::vector<TensorPart> parts;
  for (const NamedTensor& t : into) parts.push_back({t.name, t.tensor});
  const std::vector<Matched> matched = match(parts);
  std::vector<bool> named(tensors_.size());
  for (const auto& [tensor, part] : matched) {
    check(!named[tensor], "loading tensor ", in_quotes(part.name), " twice");
    named[tensor] = true;
  }
  refuse_unnamed(named);
  for (const auto& [tensor, part] : matched) fill(tensor, part);
}

void StoredTensors::load_all(std::span<const TensorPart> into, Communicator& comm) const {
  std::vector<Matched> matched;
  const std::vector<std::string> by_rank = gather(comm, [&] {
    matched = match(into);
    std::string named(tensors_.size(), '0');
    for (const auto& [tensor, part] : matched) named[tensor] = '1';
    return named;
  });
  std::vector<bool> named(tensors_.size());
  for (const std::string& of_rank : by_rank)
    for (size_t i = 0; i < named.size(); ++i) named[i] = named[i] || of_rank.at(i) == '1';
  refuse_unnamed(named);
  together(comm, [&] {
    for (const auto& [tensor, part] : matched) fill(tensor, part);
  });
}

}  // namespace agon
