#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "apps/atomic_file.h"

namespace agon {

/// manifest.json of a checkpoint: a JSON object
///   {"format": "agon-checkpoint", "version": 1, "step": N, "best": bool,
///    "files": {NAME: {"bytes": N, "xxh64": 16 digits}, ...}, "state": {...}, "config": text, "seal": 16 digits}
/// whose last member is the XXH64 of all bytes before the comma in front of it. It is written after everything it
/// names.
struct Manifest {
  int64_t step = 0;
  bool best = false;
  std::map<std::string, FileDigest> files;
  std::string state;   // JSON text of an object
  std::string config;  // UTF-8
};

/// The text of the file. Error unless `state` is a JSON object and `config` is UTF-8.
std::string make_manifest(const Manifest& manifest);

/// UserError naming the file where it is missing, damaged, of another format or of a newer version.
Manifest read_manifest(const std::string& folder, FileSystem& files);

/// UserError naming the first file in `folder` that is missing or has not the size (`contents`: or the checksum) of the
/// manifest.
void verify_files(const std::string& folder, const Manifest& manifest, bool contents, FileSystem& files);

}  // namespace agon
