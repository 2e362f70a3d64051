#pragma once
#include <span>
#include <string>
#include <vector>

#include "apps/safetensors.h"
#include "apps/tensor_part.h"
#include "apps/tensor_table.h"
#include "distributed/communicator.h"

namespace agon {

/// The tensors of one kind that a checkpoint has: in one file, or cut into parts that lie in shards. Whole tensors and
/// any range of them are read from whatever files hold them, and no byte besides. All problems are UserErrors naming
/// file, tensor, what was found and what was expected.
class StoredTensors {
 public:
  explicit StoredTensors(SafetensorsFile file);
  /// Opens the shards of a table in `folder`. UserError naming shard and tensor where a shard is missing or does not
  /// hold what the table says.
  StoredTensors(const std::string& folder, const TensorTable& table, FileSystem& files);

  const std::string& path() const { return path_; }  ///< the file, or the manifest where there are many
  const std::vector<TensorEntry>& tensors() const { return tensors_; }  ///< whole ones, sorted by name
  const TensorEntry* find(const std::string& name) const;               ///< null where there is none

  /// A new tensor on the CPU.
  Tensor load(const std::string& name) const;
  /// Fills a tensor on any device. The shape must agree, and the dtype too unless `convert`.
  void load_into(const std::string& name, const Tensor& into, bool convert = false) const;
  void load_into(const TensorPart& into, bool convert = false) const;
  /// Fills all of them, and nothing unless all names, shapes and dtypes agree. Others that are here are not looked at.
  void load(std::span<const TensorPart> into) const;
  /// The same, and refuses what is here and not named.
  void load_all(std::span<const NamedTensor> into) const;
  /// The same for ranks that together name everything, each what it needs. Collective: all ranks throw what one does.
  void load_all(std::span<const TensorPart> into, Communicator& comm) const;

 private:
  /// Elements begin ... end of a tensor lie in a file, from element `skip` of an entry on.
  struct Run {
    int64_t begin, end;
    size_t file;
    const TensorEntry* entry;
    int64_t skip;
  };
  struct Matched {
    size_t tensor;
    TensorPart part;
  };
  size_t match(const TensorPart& resolved_part, bool convert) const;
  std::vector<Matched> match(std::span<const TensorPart> into) const;
  void read(size_t tensor, int64_t first, int64_t count, void* to) const;
  void fill(size_t tensor, const TensorPart& into) const;
  void refuse_unnamed(const std::vector<bool>& named) const;

  std::string path_;
  std::vector<SafetensorsFile> files_;
  std::vector<TensorEntry> tensors_;
  std::vector<std::vector<Run>> runs_;  // of each tensor, by begin: its elements without gap or overlap
};

}  // namespace agon
