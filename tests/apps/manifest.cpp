#include "apps/manifest.h"

#include <doctest/doctest.h>

#include "apps/safetensors.h"
#include "core/copy.h"
#include "tests/support/memory_files.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

Manifest sample() {
  return {12,
          true,
          {{"model.safetensors", {5, 0xfedcba9876543210}}, {"optimizer.safetensors", {0, 1}}},
          R"({"b":1,"a":[0.1]})",
          "text \"q\"\n"};
}

/// Puts a file under the seal it would have, as someone with the source could.
std::string sealed(const std::string& body) {
  Checksum c;
  c.update(body.data(), body.size());
  return body + ",\n  \"seal\": \"" + hexadecimal(c.value()) + "\"\n}\n";
}

std::string refusal(const std::string& contents) {
  MemoryFiles disk;
  write_atomically("manifest.json", contents, disk);
  return user_error([&] { read_manifest(".", disk); });
}

}  // namespace

TEST_CASE("manifest: what is written is read") {
  MemoryFiles disk;
  write_atomically("manifest.json", make_manifest(sample()), disk);
  const Manifest m = read_manifest(".", disk);
  CHECK(m.step == 12);
  CHECK(m.best);
  CHECK(m.files == sample().files);
  CHECK(m.state == sample().state);
  CHECK(m.config == sample().config);
}

TEST_CASE("manifest: every flipped bit is found") {
  const std::string whole = make_manifest(sample());
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string flipped = whole;
    flipped[at] = char(flipped[at] ^ (1 << (at % 8)));
    CAPTURE(at);
    CHECK(contains(refusal(flipped), "manifest.json"));
  }
}

TEST_CASE("manifest: a valid seal does not make contents valid") {
  const std::string whole = make_manifest(sample());
  const std::string body = whole.substr(0, whole.rfind(",\n  \"seal\""));
  CHECK(refusal(sealed(body)).empty());
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = body;
    changed.replace(changed.find(from), from.size(), to);
    return refusal(sealed(changed));
  };
  CHECK(
      contains(with("\"version\": 1", "\"version\": 3"), "found version 3, expected 1 or 2: written by a newer agon"));
  CHECK(contains(with("\"step\": 12", "\"step\": -1"), "found step -1"));
  CHECK(contains(with("\"step\": 12", "\"step\": \"x\""), "manifest.json"));
  CHECK(contains(with("\"model.safetensors\"", "\"../model.safetensors\""), "inside the folder"));
  CHECK(contains(with("\"model.safetensors\"", "\"/model.safetensors\""), "inside the folder"));
  CHECK(contains(with("\"model.safetensors\"", "\"other\""), "names no file model.safetensors"));
  CHECK(contains(with("fedcba", "FEDCBA"), "16 hexadecimal digits"));
  CHECK(contains(with("\"a\": [", "\"a\": " + std::string(100, '[')), "nested deeper than 64"));
  CHECK(contains(with("\"a\": [", "\"a\": {"), "manifest.json"));
}

TEST_CASE("manifest: where the parts of tensors are") {
  MemoryFiles disk;
  Manifest sharded = sample();
  sharded.files = {{"model-00001-of-00001.safetensors", {5, 1}}, {"optimizer-00001-of-00001.safetensors", {0, 2}}};
  sharded.tensors["model"]["w"] = {DType::bf16, {2, 3}, {{"model-00001-of-00001.safetensors", 0, 6}}};
  sharded.tensors["optimizer"];
  const std::string whole = make_manifest(sharded);
  write_atomically("manifest.json", whole, disk);
  CHECK(read_manifest(".", disk).tensors == sharded.tensors);
  CHECK(read_manifest(".", disk).files == sharded.files);
  CHECK(make_manifest(sample()).find("\"tensors\"") == std::string::npos);
  const std::string body = whole.substr(0, whole.rfind(",\n  \"seal\""));
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = body;
    changed.replace(changed.find(from), from.size(), to);
    return refusal(sealed(changed));
  };
  CHECK(contains(with("\"file\": \"model-00001", "\"file\": \"model-00002"),
                 "manifest.json: tensor 'w': a part is in 'model-00002-of-00001.safetensors', which is not among"));
  CHECK(contains(with("\"first\": 0", "\"first\": 1"), "tensor 'w': found a part of 6 elements from 1 of 6"));
  CHECK(contains(with("\"count\": 6", "\"count\": 4"), "tensor 'w': elements 4 to 6 of [2, 3] are in no file"));
  CHECK(contains(with("\"optimizer\": {}", "\"optimiser\": {}"), "optimizer"));
  CHECK(contains(with("\"version\": 2", "\"version\": 1"), "names no file model.safetensors"));
}

TEST_CASE("manifest: a file that is another shard than it should be") {
  MemoryFiles disk;
  const auto write = [&](const std::string& name, const std::string& says) {
    write_safetensors(name, std::vector<NamedTensor>{{"w", tensor_of<float>({1})}}, {{kShardKey, says}}, disk);
    return digest_file(name, disk);
  };
  Manifest m = sample();
  m.files = {{"a", write("a", "1 of 2 of step 7")}, {"b", write("b", "2 of 2 of step 7")}};
  verify_files(".", m, true, disk);
  write("b", "2 of 2 of step 5");
  CHECK(contains(user_error([&] { verify_files(".", m, true, disk); }), "./b: damaged: found checksum"));
  CHECK(contains(user_error([&] { verify_files(".", m, true, disk); }), "it says it is '2 of 2 of step 5'"));
  verify_files(".", m, true, disk, 0, 2);  // the share of the other rank
  CHECK(contains(user_error([&] { verify_files(".", m, true, disk, 1, 2); }), "./b: damaged"));
}

TEST_CASE("manifest: files that are not one") {
  for (const char* contents : {"", "{}", "{\"format\": \"x\"}", "\n\n\n", "agon-checkpoint"})
    CHECK(contains(refusal(contents), "manifest.json: "));
}
