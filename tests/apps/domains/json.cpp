#include <doctest/doctest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "apps/domains.h"

using namespace agon;

namespace {

std::string shape_of(const nlohmann::ordered_json& j) {
  std::string keys;
  for (const auto& [key, value] : j.items()) keys += key + ":" + (value.is_null() ? "object" : value.type_name()) + " ";
  return keys;
}

int64_t nodes(const nlohmann::ordered_json& tree) {
  int64_t n = 1;
  for (const auto& child : tree["children"]) n += nodes(child);
  CHECK(tree["count"] == n);
  return n;
}

void check_record(const nlohmann::ordered_json& j) {
  const std::string type = j["type"];
  if (type == "order") {
    int64_t total = 0;
    for (const auto& item : j["items"]) {
      CHECK(item["sum"] == item["quantity"].get<int64_t>() * item["price"].get<int64_t>());
      total += item["sum"].get<int64_t>();
    }
    CHECK(j["total"] == total);
    CHECK(j["invoice"]["order"] == j["id"]);
    CHECK(j["invoice"]["name"] == j["customer"]["name"]);
    CHECK(j["invoice"]["amount"] == total);
  } else if (type == "team") {
    std::set<int64_t> ids;
    for (const auto& member : j["members"]) CHECK(ids.insert(member["id"].get<int64_t>()).second);
    for (const auto& task : j["tasks"]) CHECK(ids.count(task["owner"].get<int64_t>()) == 1);
    CHECK(ids.count(j["lead"].get<int64_t>()) == 1);
    CHECK(j["size"] == ids.size());
  } else if (type == "sensor") {
    int64_t low = 1000, high = -1000, previous = -1;
    for (const auto& reading : j["readings"]) {
      low = std::min(low, reading["value"].get<int64_t>());
      high = std::max(high, reading["value"].get<int64_t>());
      if (previous >= 0) CHECK(reading["minute"] == previous + j["every"].get<int64_t>());
      previous = reading["minute"];
    }
    CHECK(j["range"] == nlohmann::ordered_json{low, high});
    CHECK(j["alarm"].is_null() == (high <= 250));
  } else if (type == "tree") {
    nodes(j["root"]);
  } else {
    CHECK(type == "library");
    CHECK(j["count"] == j["books"].size());
  }
}

}  // namespace

TEST_CASE("json: every line parses, schemas are consistent, references and sums hold") {
  Random random({12, 0});
  std::map<std::string, std::string> schema;
  for (int i = 0; i < 300; ++i) {
    std::istringstream lines(json_document(random));
    for (std::string line; std::getline(lines, line);) {
      const auto j = nlohmann::ordered_json::parse(line, nullptr, false);
      REQUIRE_FALSE(j.is_discarded());
      check_record(j);
      const auto [at, is_new] = schema.try_emplace(j["type"], shape_of(j));
      CHECK(at->second == shape_of(j));
      (void)is_new;
    }
  }
  CHECK(schema.size() == 5);
}
