#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "apps/atomic_file.h"
#include "apps/tensor_table.h"

namespace agon {

/// The metadata by which a shard says what it is: "2 of 4 of step 7".
inline constexpr const char* kShardKey = "agon_shard";

/// manifest.json of a checkpoint: a JSON object
///   {"format": "agon-checkpoint", "version": 1, "step": N, "best": bool,
///    "files": {NAME: {"bytes": N, "xxh64": 16 digits}, ...}, "state": {...}, "config": text, "seal": 16 digits}
/// whose last member is the XXH64 of all bytes before the comma in front of it. It is written after everything it
/// names. A checkpoint in shards has version 2 and, before "state", where its tensors are (tensor_table.h):
///    "tensors": {"model": {...}, "optimizer": {...}}
/// without which they are in model.safetensors and optimizer.safetensors.
struct Manifest {
  int64_t step = 0;
  bool best = false;
  std::map<std::string, FileDigest> files;
  std::string state;          // JSON text of an object
  std::string config;         // UTF-8
  TensorTables tensors = {};  // empty where there are no shards
  std::string seal = {};      // of the file it was read from
};

/// The text of the file. Error unless `state` is a JSON object and `config` is UTF-8.
std::string make_manifest(const Manifest& manifest);

/// UserError naming the file where it is missing, damaged, of another format or of a newer version.
Manifest read_manifest(const std::string& folder, FileSystem& files);

/// UserError naming the first file in `folder` that is missing or has not the size (`contents`: or the checksum) of the
/// manifest. Of several `ranks` each looks at its share of the files.
void verify_files(const std::string& folder, const Manifest& manifest, bool contents, FileSystem& files, int rank = 0,
                  int ranks = 1);

}  // namespace agon
