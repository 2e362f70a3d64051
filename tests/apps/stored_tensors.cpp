#include "apps/stored_tensors.h"

#include <doctest/doctest.h>

#include "core/copy.h"
#include "tests/support/cuda.h"
#include "tests/support/memory_files.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_files.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// Counts the bytes of elements that are read.
struct CountingFiles : MemoryFiles {
  int64_t read = 0;
  ssize_t pread(int file, void* to, size_t bytes, off_t at) override {
    read += int64_t(bytes);
    return MemoryFiles::pread(file, to, bytes, at);
  }
};

void write(const std::string& path, const std::vector<TensorSlice>& slices, FileSystem& disk) {
  FileWriter file(path, disk);
  write_safetensors(file, slices);
  file.finish();
}

const Tensor& numbers() {
  static const Tensor t = [] {
    Tensor made({4, 5}, DType::f32);
    for (int i = 0; i < 20; ++i) made.data<float>()[size_t(i)] = float(i);
    return made;
  }();
  return t;
}

/// w [4, 5] in three shards, whose parts overlap, b whole in the last, and nothing of a tensor without elements.
void write_sample(FileSystem& disk) {
  const Tensor& w = numbers();
  write("1", {{"w[0:7]", w, 0, {7}}}, disk);
  write("2", {{"w[5:15]", w, 5, {2, 5}}, {"w[6:9]", w, 6, {3}}}, disk);
  write("3", {{"b", tensor_of<double>({1.5, -2}), 0, {2}}, {"w[15:20]", w, 15, {5}}}, disk);
}
StoredTensors open_sample(FileSystem& disk) {
  return StoredTensors(".",
                       {{"b", {DType::f64, {2}, {{"3", 0, 2}}}},
                        {"none", {DType::i32, {0, 2}, {}}},
                        {"w", {DType::f32, {4, 5}, {{"1", 0, 7}, {"2", 5, 10}, {"2", 6, 3}, {"3", 15, 5}}}}},
                       disk);
}
StoredTensors sample(FileSystem& disk) {
  write_sample(disk);
  return open_sample(disk);
}

}  // namespace

TEST_CASE("stored tensors: every range, from whatever shards hold it") {
  MemoryFiles disk;
  const StoredTensors stored = sample(disk);
  CHECK(stored.path() == "./manifest.json");
  CHECK(stored.tensors().size() == 3);
  CHECK(identical(stored.load("w"), numbers()));
  CHECK(stored.load("none").size() == 0);
  for (int64_t first = 0; first <= 20; ++first)
    for (int64_t count = 0; first + count <= 20; ++count) {
      CAPTURE(first);
      CAPTURE(count);
      const Tensor into({count}, DType::f32);
      stored.load(std::vector<TensorPart>{{"w", into, first, Shape{4, 5}}});
      for (int64_t i = 0; i < count; ++i) CHECK(into.data<float>()[size_t(i)] == float(first + i));
    }
}

TEST_CASE("stored tensors: no byte is read besides") {
  CountingFiles disk;
  const StoredTensors stored = sample(disk);
  disk.read = 0;
  const Tensor into({6}, DType::f32);
  stored.load_into(TensorPart{"w", into, 4, Shape{4, 5}});
  CHECK(disk.read == 6 * 4);
}

TEST_CASE("stored tensors: converting only when asked") {
  MemoryFiles disk;
  const StoredTensors stored = sample(disk);
  const Tensor narrow({2}, DType::f32), wide({2, 5}, DType::f64);
  CHECK(contains(user_error([&] { stored.load_into("b", narrow); }), "tensor 'b' is f64, expected f32"));
  stored.load_into("b", narrow, true);
  CHECK(narrow.data<float>()[0] == 1.5f);
  stored.load_into(TensorPart{"w", wide, 10, Shape{4, 5}}, true);
  CHECK(wide.data<double>()[9] == 19);
}

TEST_CASE("stored tensors: what differs is refused by name and nothing is filled") {
  MemoryFiles disk;
  const StoredTensors stored = sample(disk);
  const Tensor w = Tensor({4, 5}, DType::f32).zero(), b({2}, DType::f64);
  const auto parts = [&](const TensorPart& other) {
    return user_error([&] { stored.load(std::vector<TensorPart>{{"w", w}, other}); });
  };
  CHECK(contains(parts({"c", b}), "manifest.json: has no tensor 'c', expected one of f64 [2]"));
  CHECK(contains(parts({"b", b, 0, Shape{3}}), "tensor 'b' has shape [2], expected [3]"));
  CHECK(contains(parts({"b", Tensor({2}, DType::f32)}), "tensor 'b' is f64, expected f32"));
  const auto all = [&](const std::vector<NamedTensor>& others) {
    std::vector<NamedTensor> named{{"w", w}};
    named.insert(named.end(), others.begin(), others.end());
    return error([&] { stored.load_all(named); });
  };
  CHECK(contains(all({{"b", b}}), "found tensor 'none' of i32 [0, 2], expected no tensor of that name"));
  CHECK(contains(all({{"b", b}, {"b", b}}), "tensor 'b' twice"));
  CHECK(contains(user_error([&] { stored.load("c"); }), "has no tensor 'c' among its 3"));
  for (float x : w.data<float>()) CHECK(x == 0);
  CHECK(all({{"b", b}, {"none", Tensor({0, 2}, DType::i32)}}).empty());
  CHECK(identical(w, numbers()));
}

TEST_CASE("stored tensors: ranks that together name everything") {
  MemoryFiles disk;
  write_sample(disk);
  SharedFiles shared(disk);
  const auto load = [&](bool all_named) {
    return failure_of(2, [&](Communicator& comm) {
      const StoredTensors stored = open_sample(shared);
      const int64_t first = comm.rank() == 0 ? 0 : 8, count = comm.rank() == 0 ? 8 : 12;
      const Tensor part({count}, DType::f32), b({2}, DType::f64), none({0, 2}, DType::i32);
      std::vector<TensorPart> into{{"w", part, first, Shape{4, 5}}, {"none", none}};
      if (comm.rank() == 1 && all_named) into.push_back({"b", b});
      stored.load_all(into, comm);
      for (int64_t i = 0; i < count; ++i) CHECK(part.data<float>()[size_t(i)] == float(first + i));
    });
  };
  CHECK(load(true).empty());
  CHECK(contains(load(false), "found tensor 'b' of f64 [2]"));
}

TEST_CASE("stored tensors: shards that are not what the table says") {
  MemoryFiles disk;
  write_sample(disk);
  const auto refusal = [&](const StoredTensor& w) { return user_error([&] { StoredTensors(".", {{"w", w}}, disk); }); };
  CHECK(refusal({DType::f32, {20}, {{"1", 0, 7}, {"2", 5, 10}, {"3", 15, 5}}}).empty());
  CHECK(contains(refusal({DType::f32, {20}, {{"1", 0, 7}, {"2", 5, 10}, {"4", 15, 5}}}), "./4: open failed"));
  CHECK(
      contains(refusal({DType::f32, {20}, {{"2", 0, 7}, {"1", 5, 10}, {"3", 15, 5}}}), "./2: has no tensor 'w[0:7]'"));
  CHECK(contains(refusal({DType::bf16, {20}, {{"1", 0, 7}, {"2", 5, 10}, {"3", 15, 5}}}),
                 "./1: tensor 'w[0:7]' is f32 [7], expected 7 of bf16 by the manifest"));
}

GPU_CASE("stored tensors: ranges of what a GPU had, on a GPU") {
  MemoryFiles disk;
  const Tensor w = there(numbers());
  write("1", {{"w[0:7]", w, 0, {7}}}, disk);
  write("2", {{"w[7:20]", w, 7, {13}}}, disk);
  const StoredTensors stored(".", {{"w", {DType::f32, {4, 5}, {{"1", 0, 7}, {"2", 7, 13}}}}}, disk);
  const Tensor into = there(Tensor({6}, DType::f32));
  stored.load_into(TensorPart{"w", into, 4, Shape{4, 5}});
  CHECK(identical(on_host(into), tensor_of<float>({4, 5, 6, 7, 8, 9})));
}
