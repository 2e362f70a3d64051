#include "apps/manifest.h"

#include <nlohmann/json.hpp>

#include "apps/safetensors.h"
#include "core/error.h"

namespace agon {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "agon-checkpoint";
constexpr int kOneFileEach = 1, kShards = 2;  // versions
constexpr int kMaxDepth = 64;
constexpr uint64_t kMaxBytes = 256 << 20;

std::string seal_of(std::string_view body) {
  Checksum checksum;
  checksum.update(body.data(), body.size());
  return ",\n  \"seal\": \"" + hexadecimal(checksum.value()) + "\"\n}\n";
}

/// A tree deep enough to overflow the stack where it is copied is refused before it is built.
Json parse(const std::string& json) {
  return Json::parse(json, [](int depth, Json::parse_event_t, Json&) {
    require(depth <= kMaxDepth, "nested deeper than ", kMaxDepth);
    return true;
  });
}

uint64_t parse_hexadecimal(const std::string& digits) {
  require(digits.size() == 16 && digits.find_first_not_of("0123456789abcdef") == std::string::npos,
          "found the checksum ", in_quotes(digits), ", expected 16 hexadecimal digits");
  return std::stoull(digits, nullptr, 16);
}

/// What a shard that is not the right one says of itself, where it can say something.
std::string what_it_says(const std::string& path, FileSystem& files) {
  try {
    const Metadata metadata = SafetensorsFile::open(path, files).metadata();
    const auto found = metadata.find(kShardKey);
    return found == metadata.end() ? "" : "; it says it is " + in_quotes(found->second);
  } catch (const Error&) { return ""; }
}

Manifest read(const Json& json) {
  const int64_t version = json.at("version").get<int64_t>();
  require(version == kOneFileEach || version == kShards, "found version ", version, ", expected ", kOneFileEach, " or ",
          kShards, version > kShards ? ": written by a newer agon" : "");
  Manifest m;
  m.step = json.at("step").get<int64_t>();
  require(m.step >= 0, "found step ", m.step, ", expected at least 0");
  m.best = json.at("best").get<bool>();
  for (const auto& [name, entry] : json.at("files").items()) {
    require(!name.empty() && name[0] != '.' && name.find_first_of(std::string_view("/\0", 2)) == std::string::npos,
            "found the file name ", in_quotes(name), ", expected one inside the folder");
    m.files[name] = {entry.at("bytes").get<uint64_t>(), parse_hexadecimal(entry.at("xxh64").get<std::string>())};
  }
  for (const std::string kind : kTensorKinds) {
    if (version == kOneFileEach) {
      require(m.files.count(kind + ".safetensors"), "names no file ", kind, ".safetensors");
      continue;
    }
    m.tensors[kind] = table_from_json(json.at("tensors").at(kind));
    for (const auto& [name, tensor] : m.tensors[kind])
      for (const StoredPart& part : tensor.parts)
        require(m.files.count(part.file), "tensor ", in_quotes(name), ": a part is in ", in_quotes(part.file),
                ", which is not among the files");
  }
  m.config = json.at("config").get<std::string>();
  require(json.at("state").is_object(), "expected an object as state");
  m.state = json.at("state").dump();
  return m;
}

}  // namespace

std::string make_manifest(const Manifest& m) try {
  Json json;
  json["format"] = kFormat;
  json["version"] = m.tensors.empty() ? kOneFileEach : kShards;
  json["step"] = m.step;
  json["best"] = m.best;
  json["files"] = Json::object();
  for (const auto& [name, digest] : m.files)
    json["files"][name] = {{"bytes", digest.bytes}, {"xxh64", hexadecimal(digest.checksum)}};
  for (const auto& [kind, table] : m.tensors) json["tensors"][kind] = to_json(table);
  json["state"] = parse(m.state);
  check(json["state"].is_object(), "the state of a checkpoint must be a JSON object");
  json["config"] = m.config;
  std::string body = json.dump(2);
  body.resize(body.size() - 2);  // the line break and brace that come back with the seal
  return body + seal_of(body);
} catch (const Json::exception& e) {
  throw Error(text("a checkpoint's state or config cannot be written: ", e.what()));
}

Manifest read_manifest(const std::string& folder, FileSystem& files) {
  const std::string path = folder + "/manifest.json", contents = read_file(path, kMaxBytes, files);
  const size_t tail = seal_of("").size();
  const std::string body = contents.substr(0, contents.size() < tail ? 0 : contents.size() - tail);
  const bool ours = body.substr(0, 100).find(kFormat) != std::string::npos;
  require(ours, path, ": not the manifest of an agon checkpoint: expected the format \"", kFormat, '"');
  require(contents == body + seal_of(body), path, ": damaged: found other contents than its checksum was made of");
  try {
    Manifest m = read(parse(contents));
    m.seal = contents.substr(body.size());
    return m;
  } catch (const Json::exception& e) { throw UserError(text(path, ": ", e.what())); } catch (const UserError& e) {
    throw UserError(text(path, ": ", e.what()));
  }
}

void verify_files(const std::string& folder, const Manifest& manifest, bool contents, FileSystem& files, int rank,
                  int ranks) {
  int number = 0;
  for (const auto& [name, expected] : manifest.files) {
    if (number++ % ranks != rank) continue;
    const std::string path = folder + '/' + name;
    const uint64_t bytes = File(path, files).bytes();
    require(bytes == expected.bytes, path, ": damaged: found ", bytes, " bytes, expected ", expected.bytes,
            " by the manifest", what_it_says(path, files));
    if (!contents) continue;
    const uint64_t checksum = digest_file(path, files).checksum;
    require(checksum == expected.checksum, path, ": damaged: found checksum ", hexadecimal(checksum), ", expected ",
            hexadecimal(expected.checksum), " by the manifest", what_it_says(path, files));
  }
}

}  // namespace agon
