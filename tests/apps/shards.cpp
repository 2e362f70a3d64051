// Checkpoints of many ranks: saved in one layout, loaded in any other.

#include <doctest/doctest.h>

#include <mutex>
#include <set>

#include "apps/checkpoint.h"
#include "apps/manifest.h"
#include "tests/apps/layouts.h"
#include "tests/support/memory_files.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_files.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

struct Layout {
  int expert, data;
  int ranks() const { return expert * data; }
};

void save(FileSystem& files, int64_t step, const WholeRun& whole, Layout layout) {
  SharedFiles shared(files);
  run_on_threads(layout.ranks(), [&](Communicator& comm) {
    const Holding holding(whole, comm.rank(), layout.expert, layout.data);
    const SavedCheckpoint saved = save_checkpoint("run", step, holding.model, holding.optimizer, "{\"seen\":1}",
                                                  "config", {2, false, &shared}, comm);
    CHECK(saved.path == "run/checkpoints/step-" + std::to_string(step));
    CHECK(saved.warnings.empty());
  });
}

void check_equal(const std::vector<NamedTensor>& expected, const std::vector<TensorPart>& found) {
  for (size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(expected[i].name);
    CHECK(identical(found[i].tensor.reshape({found[i].tensor.size()}),
                    cut(expected[i].tensor, found[i].first, found[i].tensor.size())));
  }
}

/// Loads on the ranks of a layout and compares with what was saved.
void check_loads(FileSystem& files, const WholeRun& whole, Layout layout) {
  SharedFiles shared(files);
  run_on_threads(layout.ranks(), [&](Communicator& comm) {
    const FoundCheckpoint found = find_latest_valid("run", comm, shared);
    REQUIRE(found.checkpoint.has_value());
    CHECK(found.skipped.empty());
    Holding holding(whole, comm.rank(), layout.expert, layout.data);
    for (auto* parts : {&holding.model, &holding.optimizer})
      for (TensorPart& p : *parts) p.tensor = Tensor(p.tensor.shape(), p.tensor.dtype()).zero();
    found.checkpoint->load_model(holding.model, comm);
    found.checkpoint->load_optimizer(holding.optimizer, comm);
    check_equal(whole.model, holding.model);
    check_equal(whole.optimizer, holding.optimizer);
  });
}

const WholeRun& sample() {
  static const WholeRun whole(1);
  return whole;
}

/// A sharded checkpoint on a real disk, to be damaged, after an older one.
struct OnDisk {
  TemporaryFolder folder;
  std::string run = folder / "run";
  OnDisk() {
    for (int64_t step : {1, 2})
      run_on_threads(2, [&](Communicator& comm) {
        const Holding holding(WholeRun(uint64_t(step)), comm.rank(), 2, 1);
        save_checkpoint(run, step, holding.model, holding.optimizer, "{}", "", {}, comm);
      });
  }
  std::string file(int step, const std::string& name) const {
    return run + "/checkpoints/step-" + std::to_string(step) + '/' + name;
  }
  /// What is said of the newest by whoever opens it, on one rank and on many; all fall back to the older one.
  std::string refusal() const {
    const std::string message = user_error([&] { open_checkpoint(run + "/latest"); });
    std::mutex mutex;
    std::set<std::string> lines;
    for (int ranks : {1, 2, 3, 4})
      run_on_threads(ranks, [&](Communicator& comm) {
        const FoundCheckpoint found = find_latest_valid(run, comm);
        REQUIRE(found.checkpoint.has_value());
        CHECK(found.checkpoint->step() == 1);
        REQUIRE(found.skipped.size() == 1);
        std::string line = found.skipped[0];
        if (line.starts_with("rank ")) line.erase(0, line.find(": ") + 2);
        const std::lock_guard lock(mutex);
        lines.insert(line);
      });
    for (const std::string& line : lines) CHECK(line.starts_with(message));  // where two ranks look, maybe at two files
    return message;
  }
};

}  // namespace

TEST_CASE("shards: saved in one layout, loaded in any other") {
  for (const Layout from : {Layout{4, 1}, {2, 2}, {1, 4}, {1, 1}, {2, 1}, {1, 3}})
    for (const Layout to : {Layout{1, 1}, {2, 1}, {1, 2}, {1, 3}, {4, 1}, {2, 2}, {1, 4}}) {
      CAPTURE(from.expert);
      CAPTURE(from.data);
      CAPTURE(to.expert);
      CAPTURE(to.data);
      MemoryFiles disk;
      save(disk, 7, sample(), from);
      check_loads(disk, sample(), to);
    }
}

TEST_CASE("shards: a checkpoint in shards is read as if it were whole") {
  MemoryFiles disk;
  save(disk, 7, sample(), {2, 2});
  const Checkpoint c = open_checkpoint("run", nullptr, disk);
  CHECK(c.step() == 7);
  CHECK(c.state() == "{\"seen\":1}");
  CHECK(c.config() == "config");
  std::vector<NamedTensor> model;
  for (const NamedTensor& t : sample().model) model.push_back({t.name, Tensor(t.tensor.shape(), t.tensor.dtype())});
  c.load_model(model);
  for (size_t i = 0; i < model.size(); ++i) CHECK(identical(model[i].tensor, sample().model[i].tensor));
  CHECK(identical(c.optimizer().load("second.embed"), sample().optimizer[5].tensor));
  CHECK(c.model().tensors().size() == sample().model.size());
  const TensorEntry* experts = c.model().find("experts.down");
  REQUIRE(experts);
  CHECK(experts->shape == Shape{4, 3, 5});
}

TEST_CASE("shards: every element is written once, by all ranks") {
  MemoryFiles disk;
  save(disk, 7, sample(), {2, 2});
  std::vector<std::string> names;
  disk.list("run/checkpoints/step-7", &names);
  CHECK(names == std::vector<std::string>{
                     "manifest.json", "model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors",
                     "model-00003-of-00004.safetensors", "model-00004-of-00004.safetensors",
                     "optimizer-00001-of-00004.safetensors", "optimizer-00002-of-00004.safetensors",
                     "optimizer-00003-of-00004.safetensors", "optimizer-00004-of-00004.safetensors"});
  const Manifest manifest = read_manifest("run/checkpoints/step-7", disk);
  for (const auto& [kind, table] : manifest.tensors)
    for (const auto& [name, tensor] : table) {
      CAPTURE(name);
      int64_t elements = 0;
      for (const StoredPart& part : tensor.parts) elements += part.count;
      CHECK(elements == tensor.shape.size());
    }
  const SafetensorsFile shard = SafetensorsFile::open("run/checkpoints/step-7/model-00003-of-00004.safetensors", disk);
  CHECK(shard.metadata().at(kShardKey) == "3 of 4 of step 7");
  CHECK(manifest.tensors.at("model").at("experts.down").parts.size() == 2);
}

TEST_CASE("shards: one rank writes the files it always has") {
  MemoryFiles one, many;
  save_checkpoint("run", 7, sample().model, sample().optimizer, "{\"seen\":1}", "config", {2, false, &one});
  save(many, 7, sample(), {1, 1});
  for (const char* name : {"manifest.json", "model.safetensors", "optimizer.safetensors"}) {
    const std::string path = std::string("run/checkpoints/step-7/") + name;
    CHECK(read_file(path, 1 << 20, one) == read_file(path, 1 << 20, many));
  }
  CHECK(read_manifest("run/checkpoints/step-7", many).tensors.empty());
  CHECK(contains(read_file("run/checkpoints/step-7/manifest.json", 1 << 20, many), "\"version\": 1,"));
  std::vector<NamedTensor> plain;
  for (const NamedTensor& t : sample().model) plain.push_back(t);
  write_safetensors("plain", plain, {}, one);
  CHECK(read_file("plain", 1 << 20, one) == read_file("run/checkpoints/step-7/model.safetensors", 1 << 20, many));
}

TEST_CASE("shards: damage to any file is found, named, and the one before it used") {
  const OnDisk disk;
  std::vector<std::string> names;
  FileSystem::real().list(disk.file(2, "").c_str(), &names);
  REQUIRE(names.size() == 5);
  for (const std::string& name : names) {
    CAPTURE(name);
    const std::string path = disk.file(2, name), whole = contents_of(path);
    const auto refusal_of = [&](const std::string& contents) {
      put(path, contents);
      const std::string found = disk.refusal();
      put(path, whole);
      return found;
    };
    std::string flipped = whole;
    flipped[whole.size() - 20] = char(flipped[whole.size() - 20] ^ 4);
    CHECK(contains(refusal_of(flipped), path));
    CHECK(contains(refusal_of(whole.substr(0, whole.size() - 1)), path));
    CHECK(contains(refusal_of(""), path));
    std::filesystem::remove(path);
    CHECK(
        contains(disk.refusal(), name == "manifest.json" ? "not a checkpoint" : path + ": open failed: No such file"));
    put(path, whole);
  }
  CHECK(find_latest_valid(disk.run).checkpoint->step() == 2);
}

TEST_CASE("shards: two that are swapped, and one of another step") {
  const OnDisk disk;
  const std::string first = disk.file(2, "model-00001-of-00002.safetensors"),
                    second = disk.file(2, "model-00002-of-00002.safetensors"), whole = contents_of(first);
  put(first, contents_of(second));
  put(second, whole);
  CHECK(contains(disk.refusal(), first + ": damaged"));
  CHECK(contains(disk.refusal(), "it says it is '2 of 2 of step 2'"));
  put(second, contents_of(first));
  put(first, contents_of(disk.file(1, "model-00001-of-00002.safetensors")));
  CHECK(contains(disk.refusal(), first + ": damaged: found checksum"));
  CHECK(contains(disk.refusal(), "it says it is '1 of 2 of step 1'"));
}

TEST_CASE("shards: a manifest with a gap, or whose tensors are not in the shards, names the tensor") {
  const OnDisk disk;
  const std::string path = disk.file(2, "manifest.json"), whole = contents_of(path),
                    body = whole.substr(0, whole.rfind(",\n  \"seal\""));
  const auto refusal_with = [&](const std::string& from, const std::string& to) {
    std::string changed = body;
    REQUIRE(changed.find(from) != std::string::npos);
    changed.replace(changed.find(from), from.size(), to);
    Checksum c;
    c.update(changed.data(), changed.size());
    put(path, changed + ",\n  \"seal\": \"" + hexadecimal(c.value()) + "\"\n}\n");
    return disk.refusal();
  };
  CHECK(contains(refusal_with("\"first\": 30,", "\"first\": 31,"), "tensor 'experts.down'"));
  CHECK(contains(refusal_with("\"count\": 30", "\"count\": 29"), "'experts.down': elements 29 to 30 of [4, 3, 5]"));
  CHECK(contains(refusal_with("\"experts.down\"", "\"experts.up\""), "has no tensor 'experts.up[0:30]'"));
  CHECK(
      contains(refusal_with("\"dtype\": \"bf16\"", "\"dtype\": \"f16\""), "tensor 'head' is bf16 [5, 7], expected 35"));
}

TEST_CASE("shards: what ranks would save that does not fit together is refused by all") {
  MemoryFiles disk;
  SharedFiles shared(disk);
  const auto refusal = [&](const std::function<std::vector<TensorPart>(int rank)>& parts, int keep = 2) {
    std::mutex mutex;
    std::set<std::string> messages;
    run_on_threads(3, [&](Communicator& comm) {
      const std::string message = error([&] {
        save_checkpoint("run", 1, parts(comm.rank()), {}, "{}", "", {keep, false, &shared}, comm);
      });
      comm.barrier();
      const std::lock_guard lock(mutex);
      messages.insert(message);
    });
    CHECK(messages.size() == 1);
    return *messages.begin();
  };
  const Tensor x = tensor_of<float>({1, 2});
  using Parts = std::vector<TensorPart>;
  CHECK(contains(refusal([&](int rank) {
                   return Parts{{"x", x, rank == 0 ? 0 : 4, Shape{6}}};
                 }),
                 "tensor 'x': no rank has elements 2 to 4 of [6]"));
  CHECK(contains(refusal([&](int rank) {
                   return Parts{{"x", x, 0, Shape{2, 1 + rank / 2}}};
                 }),
                 "ranks disagree on tensor 'x': f32 [2, 1] on rank 0, f32 [2, 2] on rank 2"));
  CHECK(contains(refusal([&](int rank) { return rank == 1 ? Parts{{"x", {}}} : Parts{{"x", x}}; }), "rank 1 on "));
  CHECK(contains(refusal([&](int rank) {
                   return rank == 1 ? Parts{{"x", x, 1}} : Parts{{"x", x}};
                 }),
                 "tensor 'x': a part of elements 1 to 3 of [2]"));
  CHECK(contains(refusal([&](int) { return Parts{{"x", x}}; }, 1), "at least 2"));
  std::vector<std::string> names;
  CHECK_FALSE(exists("run", disk));
}

TEST_CASE("shards: hosts that do not share a file system") {
  MemoryFiles disks[2];
  std::mutex mutex;
  std::set<std::string> messages;
  const auto on_two_hosts = [&](const std::function<void(Communicator&, FileSystem&)>& body) {
    messages.clear();
    run_on_threads(2, [&](Communicator& comm) {
      const std::string message = error([&] { body(comm, disks[comm.rank()]); });
      comm.barrier();
      const std::lock_guard lock(mutex);
      messages.insert(message);
    });
    REQUIRE(messages.size() == 1);
    return *messages.begin();
  };
  const auto saving = [&](Communicator& comm, FileSystem& files) {
    save_checkpoint("run", 5, std::vector<TensorPart>{{"x", tensor_of<float>({1})}}, {}, "{}", "", {2, false, &files},
                    comm);
  };
  const std::string message = on_two_hosts(saving);
  CHECK(message.starts_with("rank 1 on "));
  CHECK(contains(message, ": run/checkpoints/.step-5.tmp: not found, though rank 0 on "));
  CHECK(contains(message, "in a file system that all ranks share"));
  CHECK_FALSE(exists("run/checkpoints/.step-5.tmp", disks[0]));
  // A folder of the same name, left behind by another job there.
  make_folder("run/checkpoints/.step-5.tmp", disks[1]);
  CHECK(contains(on_two_hosts(saving), "model-00002-of-00002.safetensors: written by rank 1 on "));
  save_checkpoint("run", 3, sample().model, sample().optimizer, "{}", "", {2, false, &disks[0]});
  const auto finding = [](Communicator& comm, FileSystem& files) { find_latest_valid("run", comm, files); };
  CHECK(contains(on_two_hosts(finding), "step-3: rank 0 on "));
  CHECK(contains(*messages.begin(), "finds a checkpoint there, rank 1 on "));
  save_checkpoint("run", 3, sample().model, {}, "{}", "", {2, false, &disks[1]});
  CHECK(contains(on_two_hosts(finding), " another: it must be in a file system that all ranks share"));
}
