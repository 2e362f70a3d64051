#include "apps/tensor_table.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

std::string refusal(const std::string& json) {
  return user_error([&] { table_from_json(nlohmann::ordered_json::parse(json)); });
}
std::string entry(const std::string& dtype, const std::string& shape, const std::string& parts) {
  return R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"parts":[)" + parts + "]}}";
}

}  // namespace

TEST_CASE("tensor table: what is written is read") {
  const TensorTable table{{"a", {DType::bf16, {4, 3}, {{"f", 0, 7}, {"g", 7, 5}}}},
                          {"empty", {DType::u8, {0}, {{"f", 0, 0}}}},
                          {"scalar", {DType::f64, {}, {{"g", 0, 1}}}},
                          {"twice", {DType::i32, {1, 2, 3, 4}, {{"f", 0, 20}, {"g", 10, 14}}}}};
  CHECK(table_from_json(to_json(table)) == table);
  CHECK(table_from_json(to_json({})).empty());
}

TEST_CASE("tensor table: elements that no part holds") {
  using Range = std::pair<int64_t, int64_t>;
  CHECK(gap({DType::f32, {10}, {}}) == Range{0, 10});
  CHECK(gap({DType::f32, {10}, {{"f", 0, 4}, {"f", 5, 5}}}) == Range{4, 5});
  CHECK(gap({DType::f32, {10}, {{"f", 0, 8}, {"f", 2, 3}, {"f", 6, 3}}}) == Range{9, 10});
  CHECK_FALSE(gap({DType::f32, {10}, {{"f", 0, 8}, {"f", 2, 3}, {"f", 6, 4}}}).has_value());
  CHECK_FALSE(gap({DType::f32, {10, 0}, {}}).has_value());
}

TEST_CASE("tensor table: names of parts") {
  CHECK(name_of_part("w", {2, 3}, 0, 6) == "w");
  CHECK(name_of_part("w", {2, 3}, 0, 5) == "w[0:5]");
  CHECK(name_of_part("w", {2, 3}, 3, 3) == "w[3:6]");
}

TEST_CASE("tensor table: what cannot be") {
  const std::string all = R"({"file":"f","first":0,"count":6})";
  CHECK(refusal(entry("f32", "[2,3]", all)).empty());
  CHECK(contains(refusal(entry("f8", "[2,3]", all)), "tensor 'w': found the dtype 'f8'"));
  CHECK(contains(refusal(entry("f32", "[1,1,1,2,3]", all)), "5 extents"));
  CHECK(contains(refusal(entry("f32", "[-2,3]", all)), "extent -2"));
  CHECK(contains(refusal(entry("f32", "[4294967296,4294967296]", all)), "more elements than can be counted"));
  CHECK(contains(refusal(entry("f32", "[2,2]", all)), "6 elements from 0 of 4"));
  CHECK(contains(refusal(entry("f32", "[2,4]", all)), "tensor 'w': elements 6 to 8 of [2, 4] are in no file"));
  CHECK(
      contains(refusal(entry("f32", "[6]", R"({"file":"f","first":9223372036854775807,"count":6})")), "elements from"));
  CHECK(contains(refusal(entry("f32", "[6]", R"({"file":"f","first":0,"count":-1})")), "-1 elements"));
  CHECK(contains(refusal(entry("f32", "[6]", R"({"file":"f","first":3,"count":3},)" + all)), "in order"));
}

TEST_CASE("tensor table: shapes and dtypes") {
  for (const Shape& s : {Shape{}, Shape{7}, Shape{2, 0}, Shape{1, 2, 3}, Shape{4, 3, 2, 1}})
    CHECK(shape_of(extents_of(s)) == s);
  for (const DType t : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32, DType::u8})
    CHECK(dtype_named(std::string(name_of(t))) == t);
}
