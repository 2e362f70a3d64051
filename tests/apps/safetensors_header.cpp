#include "apps/safetensors_header.h"

#include <doctest/doctest.h>

#include "core/error.h"

using namespace agon;

TEST_CASE("safetensors header: made and read back, aligned, the widest dtype first") {
  std::vector<TensorEntry> tensors{{"b", DType::bf16, {3}, 0, 0},
                                   {"c", DType::f32, {2, 2}, 0, 0},
                                   {"a", DType::f64, {1}, 0, 0},
                                   {"empty", DType::u8, {0, 4}, 0, 0}};
  const std::string json = make_header(tensors, {{"format", "pt"}});
  CHECK((json.size() + 8) % 8 == 0);
  CHECK(tensors[0].name == "a");
  CHECK(tensors[1].name == "c");
  CHECK(tensors[1].begin == 8);
  CHECK(tensors[3].begin == tensors[3].end);
  const SafetensorsHeader header = parse_header(json, 8 + 16 + 6, "FILE");
  REQUIRE(header.tensors.size() == 4);
  CHECK(header.tensors[0].name == "a");
  CHECK(header.tensors[2].shape == Shape{2, 2});
  CHECK(header.metadata.at("format") == "pt");
}

TEST_CASE("safetensors header: what is refused names the file") {
  const auto tensor = [](const char* fields) { return std::string("{\"t\":{") + fields + "}}"; };
  const std::string good = tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])");
  CHECK(parse_header(good, 8, "FILE").tensors.size() == 1);
  CHECK_THROWS_AS(parse_header(good, 12, "FILE"), UserError);  // bytes that no tensor owns
  CHECK_THROWS_AS(parse_header(good, 4, "FILE"), UserError);
  for (const char* bad :
       {R"("dtype":"F32","shape":[2],"data_offsets":[0,4])", R"("dtype":"X9","shape":[2],"data_offsets":[0,8])",
        R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])", R"("dtype":"F32","shape":[2])",
        R"("dtype":"F32","shape":[4194305,4194305,211106198978564],"data_offsets":[0,8])",
        R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])",
        R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1)"})
    CHECK_THROWS_WITH_AS(parse_header(tensor(bad), 8, "FILE"), doctest::Contains("FILE"), UserError);
  for (const char* bad : {"", "[]", " {}x", "{", "{\"a\":1}", "{\"a\":{\"b\":{\"c\":{\"d\":1}}}}"})
    CHECK_THROWS_WITH_AS(parse_header(bad, 0, "FILE"), doctest::Contains("FILE"), UserError);
}
