#include "apps/safetensors.h"

#include <doctest/doctest.h>

#include "core/random.h"
#include "tests/support/faulty_files.h"
#include "tests/support/gradient.h"
#include "tests/support/memory_files.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

std::vector<NamedTensor> samples() {
  std::vector<NamedTensor> all;
  for (DType t : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32, DType::u8}) {
    Tensor x({3, 5}, t);
    for (int64_t i = 0; i < x.bytes(); ++i) static_cast<unsigned char*>(x.address())[i] = uint8_t(i * 37 + int(t));
    all.push_back({"blocks.0." + std::string(name_of(t)), x});
  }
  all.push_back({"scalar", Tensor({}, DType::f32)});
  fill(all.back().tensor, 2.5);
  all.push_back({"empty", Tensor({0, 4}, DType::f64)});
  all.push_back({"empty too", Tensor({0}, DType::u8)});
  all.push_back({"4d", random({2, 1, 3, 2}, 1, 1, DType::f32)});
  return all;
}

/// A file of this header and so many bytes of data, written to `f` of an empty disk.
std::string refusal(const std::string& header, size_t data, uint64_t length) {
  MemoryFiles disk;
  std::string contents(8, '\0');
  std::memcpy(contents.data(), &length, 8);
  write_atomically("f", contents + header + std::string(data, 'd'), disk);
  return user_error([&] { SafetensorsFile::open("f", disk); });
}
std::string refusal(const std::string& header, size_t data) { return refusal(header, data, header.size()); }

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return '"' + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[" + offsets + "]}";
}

}  // namespace

TEST_CASE("safetensors: what is written is read") {
  const TemporaryFolder t;
  const auto all = samples();
  write_safetensors(t / "x.safetensors", all, {{"key", "a \"value\" with\nall sorts \xc3\xa4"}});
  const SafetensorsFile file = SafetensorsFile::open(t / "x.safetensors");
  CHECK(file.metadata() == Metadata{{"format", "pt"}, {"key", "a \"value\" with\nall sorts \xc3\xa4"}});
  CHECK(file.tensors().size() == all.size());
  for (const NamedTensor& x : all) CHECK(identical(file.load(x.name), x.tensor));
}

TEST_CASE("safetensors: slices are written, and ranges read") {
  MemoryFiles disk;
  const Tensor x = tensor_of<float>({0, 1, 2, 3, 4, 5, 6, 7});
  {
    FileWriter writer("f", disk);
    write_safetensors(writer,
                      std::vector<TensorSlice>{{"middle", x, 2, {2, 2}}, {"end", x, 5, {3}}, {"none", x, 8, {0}}});
    writer.finish();
  }
  const SafetensorsFile file = SafetensorsFile::open("f", disk);
  CHECK(identical(file.load("middle"), tensor_of<float>({2, 3, 4, 5}).reshape({2, 2})));
  CHECK(identical(file.load("end"), tensor_of<float>({5, 6, 7})));
  CHECK(file.load("none").size() == 0);
  float two[2] = {};
  file.read(file.at("middle"), 1, 2, two);
  CHECK((two[0] == 3 && two[1] == 4));
}

TEST_CASE("safetensors: the file is the one the reference would write") {
  MemoryFiles disk;
  write_safetensors("f", std::vector<NamedTensor>{{"b", tensor_of<uint8_t>({7})}, {"a", tensor_of<float>({1})}}, {},
                    disk);
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  CHECK(read_file("f", 1000, disk) ==
        std::string(1, char(padded.size())) + std::string(7, '\0') + padded + std::string("\0\0\x80\x3f\x07", 5));
}

TEST_CASE("safetensors: no tensors at all") {
  MemoryFiles disk;
  write_safetensors("f", {}, {}, disk);
  CHECK(SafetensorsFile::open("f", disk).tensors().empty());
  CHECK(refusal("{}", 0).empty());
}

TEST_CASE("safetensors: converting only when asked") {
  MemoryFiles disk;
  write_safetensors("f", std::vector<NamedTensor>{{"x", tensor_of<float>({1.5f, -2})}}, {}, disk);
  const SafetensorsFile file = SafetensorsFile::open("f", disk);
  CHECK(file.load("x").dtype() == DType::f32);
  CHECK(identical(file.load("x", DType::f64), tensor_of<double>({1.5, -2})));
  CHECK(contains(user_error([&] { file.load("y"); }), "f: has no tensor 'y'"));
}

TEST_CASE("safetensors: what cannot be written") {
  MemoryFiles disk;
  const Tensor x = tensor_of<float>({1});
  for (const std::string name : {"__metadata__", "", "a..b"})
    CHECK(!error([&] { write_safetensors("f", std::vector<NamedTensor>{{name, x}}, {}, disk); }).empty());
  CHECK(contains(error([&] { write_safetensors("f", std::vector<NamedTensor>{{"\xff", x}}, {}, disk); }), "UTF-8"));
  CHECK(contains(error([&] {
                   write_safetensors("f", std::vector<NamedTensor>{{"x", x}, {"x", x}}, {}, disk);
                 }),
                 "'x' twice"));
  CHECK(contains(error([&] { write_safetensors("f", std::vector<NamedTensor>{{"x", {}}}, {}, disk); }), "'x' is none"));
  CHECK_FALSE(exists("f", disk));
}

TEST_CASE("safetensors: hostile headers are refused") {
  const std::string good = tensor("a", "F32", "1", "0,4");
  CHECK(refusal('{' + good + '}', 4).empty());
  CHECK(refusal('{' + good + "}   ", 4).empty());
  CHECK(contains(refusal("", 0, 0xffffffffffffffff), "claims a header of 18446744073709551615 bytes"));
  CHECK(contains(refusal("{}", 0, 1000), "found only 2"));
  CHECK(contains(refusal("", 0), "begin with '{'"));
  CHECK(contains(refusal(" {}", 0), "begin with '{'"));
  CHECK(contains(refusal("{", 0), "not valid JSON"));
  CHECK(contains(refusal("{\"\xff\xfe\":{}}", 0), "not valid JSON"));
  CHECK(contains(refusal('{' + good + "} {}", 4), "not valid JSON"));
  CHECK(contains(refusal('{' + good + ',' + good + '}', 4), "tensor 'a' twice"));
  CHECK(contains(refusal('{' + tensor("a", "U8", "4", "0,4") + ',' + good + '}', 4), "tensor 'a' twice"));
  CHECK(
      contains(refusal(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4), "'dtype' twice"));
  CHECK(contains(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":0}})", 4), "a field 'x'"));
  CHECK(contains(refusal(R"({"a":{"dtype":"F32","shape":[1]}})", 0), "has no \"data_offsets\""));
  CHECK(contains(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 0), "1 data_offsets, expected 2"));
  CHECK(
      contains(refusal(R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4), "has a list in its 'shape'"));
  CHECK(contains(refusal("{\"a\":" + std::string(100000, '['), 0), "is a list, expected an object"));
  CHECK(contains(refusal(R"({"a":{"dtype":{},"shape":[1],"data_offsets":[0,4]}})", 4), "an object"));
  CHECK(contains(refusal('{' + tensor("a", "I64", "1", "0,8") + '}', 8), "dtype 'I64', expected F64, F32"));
  CHECK(contains(refusal('{' + tensor("a", "F32", "-1", "0,4") + '}', 4), "the number -1"));
  CHECK(contains(refusal('{' + tensor("a", "F32", "1.0", "0,4") + '}', 4), "the number '1.0'"));
  CHECK(contains(refusal('{' + tensor("a", "F32", "18446744073709551616", "0,4") + '}', 4), "the number"));
  CHECK(contains(refusal('{' + tensor("a", "F32", "1,1,1,1,1", "0,4") + '}', 4), "more than 4 extents"));
  CHECK(contains(refusal('{' + tensor("a", "U8", "4194305,4194305,211106198978564", "0,4") + '}', 4), "too large"));
  CHECK(contains(refusal('{' + tensor("a", "F32", "281474976710655,281474976710655,0", "0,0") + '}', 0), "too large"));
  CHECK(contains(refusal('{' + tensor("a", "F32", "281474976710656", "0,4") + '}', 4), "the extent"));
  CHECK(contains(refusal('{' + tensor("a", "F32", "2", "0,4") + '}', 4), "expected 8 bytes for f32 [2]"));
  CHECK(contains(refusal('{' + tensor("a", "F32", "1", "4,0") + '}', 4), "begins at byte 4"));
  CHECK(contains(refusal('{' + good + ',' + tensor("b", "F32", "1", "0,4") + '}', 4),
                 "begins at byte 0 of the data, expected 4"));
  CHECK(contains(refusal('{' + good + ',' + tensor("b", "F32", "1", "5,9") + '}', 9),
                 "begins at byte 5 of the data, expected 4"));
  CHECK(contains(refusal('{' + tensor("b", "F32", "1", "1,5") + '}', 5), "begins at byte 1 of the data, expected 0"));
  CHECK(contains(refusal('{' + good + '}', 5), "found 5 bytes of data, expected 4"));
  CHECK(contains(refusal('{' + good + '}', 2), "truncated"));
  CHECK(contains(refusal("{\"__metadata__\":{\"a\":1}," + good + '}', 4),
                 "the metadata 'a' is the number 1, expected a string"));
  CHECK(contains(refusal("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0), "'a' twice"));
  CHECK(contains(refusal("{\"__metadata__\":{},\"__metadata__\":{}}", 0), "twice"));
  CHECK(contains(refusal("{\"__metadata__\":[]}", 0), "expected an object"));
  CHECK(contains(refusal('{' + tensor("", "F32", "1", "0,4") + '}', 4), "an empty name"));
  CHECK(contains(refusal('{' + tensor("a\\u0000b", "F32", "1", "0,4") + '}', 4), "NUL"));
  CHECK(contains(refusal('{' + tensor("../a", "F32", "1", "0,4") + '}', 4), "'..'"));
  CHECK(contains(refusal('{' + tensor(std::string(1025, 'n'), "F32", "1", "0,4") + '}', 4), "1025 bytes"));
  CHECK(refusal('{' + tensor(std::string(1024, 'n'), "F32", "1", "0,4") + '}', 4).empty());
  CHECK(contains(refusal("[]", 0), "begin with '{'"));
  CHECK(contains(refusal("{\"a\x1b[31m\":null}", 0), "not valid JSON"));
  CHECK(contains(refusal("{\"a\\u001b[31m\":null}", 0), "'a\\x1b[31m' is null"));
}

TEST_CASE("safetensors: truncation anywhere is found") {
  MemoryFiles disk;
  write_safetensors("whole", samples(), {}, disk);
  const std::string whole = read_file("whole", 1 << 20, disk);
  for (size_t n = 0; n < whole.size(); n += n < 16 || n + 16 > whole.size() ? 1 : 13) {
    CAPTURE(n);
    write_atomically("f", whole.substr(0, n), disk);
    CHECK(contains(user_error([&] { SafetensorsFile::open("f", disk); }), "f: "));
  }
}

TEST_CASE("safetensors: a file that shrinks after it was opened") {
  MemoryFiles disk;
  write_safetensors("f", std::vector<NamedTensor>{{"x", random({100}, 1, 1, DType::f32)}}, {}, disk);
  const SafetensorsFile file = SafetensorsFile::open("f", disk);
  disk.close(disk.open("f", O_WRONLY | O_TRUNC, 0));
  CHECK(contains(user_error([&] { file.load("x"); }), "f: ends at byte"));
}

TEST_CASE("safetensors: random damage never does more than refuse") {
  MemoryFiles disk;
  write_safetensors("whole", samples(), {{"a", "b"}}, disk);
  const std::string whole = read_file("whole", 1 << 20, disk);
  uint64_t length = 0;
  std::memcpy(&length, whole.data(), 8);
  const std::string palette = "{}[]\":,0123456789.-eE\\u_FBU \t\n";
  Random draw({11, 0});
  int refused = 0, loaded = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string s = whole;
    for (uint64_t edits = 1 + draw.below(3); edits > 0; --edits) {
      const size_t at = size_t(draw.below(draw.below(4) ? 8 + length : s.size()));
      const char c = draw.below(2) ? palette[size_t(draw.below(palette.size()))] : char(draw.below(256));
      switch (draw.below(4)) {
        case 0:
          s[at % s.size()] = c;
          break;
        case 1:
          s.insert(at % s.size(), 1, c);
          break;
        case 2:
          s.erase(at % s.size(), 1 + size_t(draw.below(4)));
          break;
        default:
          s[at % s.size()] = char(s[at % s.size()] ^ (1 << draw.below(8)));
      }
    }
    if (draw.below(2)) {  // a length that fits, so that damage reaches the parser
      const uint64_t fitting = s.size() - (whole.size() - length);
      std::memcpy(s.data(), &fitting, 8);
    }
    write_atomically("f", s, disk);
    try {
      const SafetensorsFile file = SafetensorsFile::open("f", disk);
      for (const TensorEntry& t : file.tensors()) file.load(t.name);
      ++loaded;
    } catch (const UserError&) { ++refused; }
  }
  CHECK(refused + loaded == 3000);
  CHECK(refused > 1000);
  CHECK(loaded > 50);
}
