#include "apps/shard_plan.h"

#include <doctest/doctest.h>

#include <map>

#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

OfferedPart part(const std::string& name, const Shape& whole, int64_t first, int64_t count) {
  return {"model", name, DType::f32, whole, first, count};
}
OfferedPart part(const std::string& name, const Shape& whole) { return part(name, whole, 0, whole.size()); }

/// Bytes that each file will have, headers aside.
std::map<std::string, int64_t> bytes_by_file(const ShardPlan& plan) {
  std::map<std::string, int64_t> bytes;
  for (const auto& [kind, table] : plan.tables)
    for (const auto& [name, tensor] : table)
      for (const StoredPart& p : tensor.parts) bytes[p.file] += p.count * size_of(tensor.dtype);
  return bytes;
}

std::string refusal(const std::vector<Offer>& offers) {
  return error([&] { plan_shards(offers); });
}

}  // namespace

TEST_CASE("shard plan: one rank with everything whole writes one file of each kind") {
  const ShardPlan plan = plan_shards(std::vector<Offer>{{1, {part("a", {2, 3}), part("none", {0})}}});
  CHECK(plan.one_file);
  CHECK(plan.tables.at("model").at("a").parts == std::vector<StoredPart>{{"model.safetensors", 0, 6}});
  CHECK(plan.tables.at("model").at("none").parts == std::vector<StoredPart>{{"model.safetensors", 0, 0}});
  CHECK(plan.tables.at("optimizer").empty());
  const ShardPlan cut = plan_shards(std::vector<Offer>{{1, {part("a", {6}, 0, 2), part("a", {6}, 2, 4)}}});
  CHECK_FALSE(cut.one_file);
  CHECK(cut.file("model", 0, 1) == "model-00001-of-00001.safetensors");
}

TEST_CASE("shard plan: what one rank has alone it writes, what several have is spread") {
  std::vector<Offer> offers(4, Offer{1, {}});
  for (int rank = 0; rank < 4; ++rank) {
    auto& parts = offers[size_t(rank)].parts;
    parts.push_back(part("experts", {4, 100}, rank * 100, 100));
    for (int i = 0; i < 8; ++i) parts.push_back(part("shared." + std::to_string(i), {10, 10}));
    parts.push_back({"optimizer", "m", DType::f64, {7}, 0, 7});
  }
  const ShardPlan plan = plan_shards(offers);
  CHECK_FALSE(plan.one_file);
  const auto& experts = plan.tables.at("model").at("experts").parts;
  REQUIRE(experts.size() == 4);
  for (int rank = 0; rank < 4; ++rank)
    CHECK(experts[size_t(rank)] == StoredPart{plan.file("model", rank, 4), rank * 100, 100});
  std::map<std::string, int> written;
  for (int i = 0; i < 8; ++i) {
    const auto& parts = plan.tables.at("model").at("shared." + std::to_string(i)).parts;
    REQUIRE(parts.size() == 1);
    ++written[parts[0].file];
  }
  CHECK(written.size() == 4);
  for (const auto& [file, n] : written) CHECK(n == 2);
}

TEST_CASE("shard plan: a large tensor that all have is cut") {
  std::vector<Offer> offers(4, Offer{1, {part("embed", {4096, 1025}), part("small", {3})}});
  const ShardPlan plan = plan_shards(offers);
  const auto bytes = bytes_by_file(plan);
  REQUIRE(bytes.size() == 4);
  const int64_t fair = (4096 * 1025 + 3) * 4 / 4;
  for (const auto& [file, n] : bytes) CHECK(std::abs(n - fair) < fair / 4 + 100);
  const StoredTensor& embed = plan.tables.at("model").at("embed");
  CHECK(embed.parts.size() > 4);
  CHECK_FALSE(gap(embed).has_value());
  int64_t sum = 0;
  for (const StoredPart& p : embed.parts) sum += p.count;
  CHECK(sum == embed.shape.size());
  // One that can only be written by one rank stays whole.
  offers[0].parts.push_back(part("alone", {4096, 4096}));
  CHECK(plan_shards(offers).tables.at("model").at("alone").parts.size() == 1);
}

TEST_CASE("shard plan: parts without elements are nobody's") {
  std::vector<Offer> offers{{1, {part("a", {6}, 0, 6)}}, {1, {part("a", {6}, 6, 0)}}};
  CHECK(plan_shards(offers).tables.at("model").at("a").parts.size() == 1);
}

TEST_CASE("shard plan: what ranks must agree on") {
  const Offer good{1, {part("a", {6})}};
  CHECK(refusal({good, good}).empty());
  CHECK(contains(refusal({good, {2, {part("a", {6})}}}), "rank 0 step 1, rank 1 step 2"));
  CHECK(contains(refusal({good, {1, {part("a", {2, 3})}}}),
                 "ranks disagree on tensor 'a': f32 [6] on rank 0, f32 [2, 3] on rank 1"));
  CHECK(contains(refusal({{1, {}}, good, {1, {{"model", "a", DType::f64, {6}, 0, 6}}}}),
                 "f32 [6] on rank 1, f64 [6] on rank 2"));
  CHECK(contains(refusal({{1, {part("a", {6}), part("a", {6})}}}), "elements 0 to 6 twice on rank 0"));
  CHECK(contains(refusal({{1, {part("a", {6}, 0, 2)}}, {1, {part("a", {6}, 3, 3)}}}),
                 "tensor 'a': no rank has elements 2 to 3 of [6]"));
}

TEST_CASE("shard plan: offers travel as text") {
  const Offer offer{7, {part("a \"b\"\n", {2, 3}, 1, 4), {"optimizer", "m", DType::bf16, {}, 0, 1}}};
  const Offer arrived = offer_from_text(to_text(offer));
  CHECK(arrived.step == 7);
  REQUIRE(arrived.parts.size() == 2);
  CHECK(arrived.parts[0].name == "a \"b\"\n");
  CHECK(arrived.parts[0].whole == Shape{2, 3});
  CHECK(arrived.parts[0].first == 1);
  CHECK(arrived.parts[0].count == 4);
  CHECK(arrived.parts[1].kind == "optimizer");
  CHECK(arrived.parts[1].dtype == DType::bf16);
  CHECK(contains(error([] { to_text({1, {part("\xff", {1})}}); }), "UTF-8"));
}
