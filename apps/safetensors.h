#pragma once
#include <span>
#include <string>
#include <vector>

#include "apps/atomic_file.h"
#include "apps/safetensors_header.h"
#include "core/tensor.h"

namespace agon {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// Elements of a tensor, from `first` on, as many as `shape` has, to be written under a name of their own.
struct TensorSlice {
  std::string name;
  Tensor tensor;
  int64_t first = 0;
  Shape shape;
};

/// A safetensors file open for reading: its header checked, its tensors read from the disk as they are asked for.
/// Stricter than the reference (huggingface/safetensors 0.8): also refuses duplicate keys, unknown fields, nesting
/// deeper than 3, a header that does not begin with '{', and names that are empty, longer than 1 KiB or contain NUL or
/// "..". Every problem with a file is a UserError naming the file, the tensor, what was found and what was expected.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::string& path, FileSystem& files = FileSystem::real());

  const std::string& path() const { return file_.path(); }
  const std::vector<TensorEntry>& tensors() const { return tensors_; }  ///< sorted by name
  const Metadata& metadata() const { return metadata_; }
  const TensorEntry* find(const std::string& name) const;  ///< null where there is none
  const TensorEntry& at(const std::string& name) const;    ///< UserError where there is none

  /// A new tensor on the CPU in the dtype of the file, or converted to another.
  Tensor load(const std::string& name) const;
  Tensor load(const std::string& name, DType dtype) const;
  /// The elements first ... first + count of a tensor, as they are in the file.
  void read(const TensorEntry& entry, int64_t first, int64_t count, void* to) const;

 private:
  explicit SafetensorsFile(File file) : file_(std::move(file)) {}

  File file_;
  uint64_t data_ = 0;  // where the data begins
  std::vector<TensorEntry> tensors_;
  Metadata metadata_;
};

/// Replaces the file at `path` atomically (atomic_file.h). "format": "pt" is added to the metadata, because
/// transformers refuses files without it. Tensors may be on any device; the order of `tensors` does not matter.
void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors, const Metadata& metadata = {},
                       FileSystem& files = FileSystem::real());
void write_safetensors(FileWriter& file, std::span<const TensorSlice> slices, const Metadata& metadata = {});

}  // namespace agon
