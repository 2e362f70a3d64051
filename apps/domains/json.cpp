#include <nlohmann/json.hpp>

#include "apps/domains.h"
#include "apps/domains/lexicon.h"

// Records of a few schemas: the same keys in the same order with the same types, ids that other parts refer to, and
// sums that are right.

namespace agon {

namespace {

using Json = nlohmann::ordered_json;

int64_t within(Random& random, int64_t low, int64_t high) {
  return low + int64_t(random.below(uint64_t(high - low + 1)));
}

template <class T>
const T& any(Random& random, const std::vector<T>& list) {
  const uint64_t u = random.below(list.size());
  return list[random.below(u + 1)];  // the first ones more often
}

std::string one_of(Random& random, const std::vector<std::string>& list) { return any(random, list); }
std::string noun(Random& random) { return any(random, lexicon().nouns).singular; }
std::string name(Random& random) { return any(random, lexicon().names).text; }
std::string place(Random& random) { return any(random, lexicon().places); }

std::string date(Random& random) {
  const int64_t month = within(random, 1, 12), day = within(random, 1, 28), year = within(random, 2019, 2024);
  return std::to_string(year) + (month < 10 ? "-0" : "-") + std::to_string(month) + (day < 10 ? "-0" : "-") +
         std::to_string(day);
}

/// A phrase before a noun. The draws are statements of their own: the operands of + have no order.
std::string before_noun(std::string first, Random& random) { return std::move(first) + " " + noun(random); }

Json address(Random& random) {
  return {{"street", within(random, 1, 99)},
          {"city", place(random)},
          {"country", one_of(random, {"NL", "DE", "FR", "IT", "ES", "PL"})}};
}

Json order(Random& random) {
  const int64_t id = within(random, 100, 999);
  Json items = Json::array();
  int64_t total = 0;
  for (int64_t i = 1, n = within(random, 1, 4); i <= n; ++i) {
    const int64_t quantity = within(random, 1, 5), price = 5 * within(random, 1, 20);
    items.push_back(
        {{"line", i}, {"product", noun(random)}, {"quantity", quantity}, {"price", price}, {"sum", quantity * price}});
    total += quantity * price;
  }
  const std::string customer = name(random);
  Json out{{"type", "order"},
           {"id", id},
           {"date", date(random)},
           {"customer", {{"name", customer}, {"address", address(random)}}}};
  out["items"] = std::move(items);
  out["total"] = total;
  out["paid"] = random.below(3) > 0;
  out["invoice"] = {{"order", id}, {"name", customer}, {"amount", total}};
  return out;
}

Json team(Random& random) {
  Json members = Json::array(), tasks = Json::array();
  std::vector<int64_t> ids;
  int64_t id = within(random, 10, 60);
  for (int64_t i = 0, n = within(random, 2, 4); i < n; ++i, id += within(random, 1, 9)) {
    ids.push_back(id);
    members.push_back(
        {{"id", id}, {"name", name(random)}, {"role", one_of(random, {"engineer", "designer", "analyst", "manager"})}});
  }
  for (int64_t i = 0, n = within(random, 1, 4); i < n; ++i)
    tasks.push_back({{"task", before_noun(one_of(random, {"repair", "inspect", "deliver", "paint"}), random)},
                     {"owner", any(random, ids)},
                     {"done", random.below(2) == 0}});
  Json out{{"type", "team"}, {"city", place(random)}, {"lead", ids.front()}};
  out["size"] = ids.size();
  out["members"] = std::move(members);
  out["tasks"] = std::move(tasks);
  return out;
}

Json sensors(Random& random) {
  Json readings = Json::array();
  int64_t minute = within(random, 0, 59), value = within(random, 50, 300), lowest = value, highest = value;
  const int64_t step = 5 * within(random, 1, 3);
  const std::string unit = one_of(random, {"celsius", "percent", "pascal", "lux"});
  for (int64_t i = 0, n = within(random, 3, 8); i < n; ++i, minute += step, value += within(random, -4, 4)) {
    readings.push_back({{"minute", minute}, {"value", value}});
    lowest = std::min(lowest, value);
    highest = std::max(highest, value);
  }
  Json out{{"type", "sensor"}, {"place", place(random)}, {"unit", unit}, {"every", step}};
  out["readings"] = std::move(readings);
  out["range"] = {lowest, highest};
  out["alarm"] = highest > 250 ? Json({{"level", "high"}, {"limit", 250}}) : Json(nullptr);
  return out;
}

Json tree(Random& random, int depth) {
  Json out{{"node", noun(random)}};
  Json children = Json::array();
  int64_t count = 1;
  for (int64_t i = 0, n = depth == 0 ? 2 : int64_t(random.below(3)); i < n && depth < 4; ++i) {
    children.push_back(tree(random, depth + 1));
    count += children.back()["count"].get<int64_t>();
  }
  out["children"] = std::move(children);
  out["count"] = count;
  return out;
}

Json catalogue(Random& random) {
  Json books = Json::array();
  for (int64_t i = 0, n = within(random, 2, 4); i < n; ++i)
    books.push_back(
        {{"title", before_noun("the " + any(random, lexicon().adjectives), random)},
         {"author", name(random)},
         {"year", within(random, 1900, 2024)},
         {"tags", {one_of(random, {"novel", "poems", "history", "travel"}), one_of(random, {"new", "used", "rare"})}}});
  Json out{{"type", "library"}, {"city", place(random)}};
  out["count"] = books.size();
  out["books"] = std::move(books);
  return out;
}

Json record(Random& random) {
  switch (random.below(5)) {
    case 0:
      return order(random);
    case 1:
      return team(random);
    case 2:
      return sensors(random);
    case 3:
      return {{"type", "tree"}, {"root", tree(random, 0)}};
    default:
      return catalogue(random);
  }
}

}  // namespace

std::string json_document(Random& random) {
  const size_t length = 200 + size_t(random.below(250));
  std::string out;
  while (out.size() < length) {
    const std::string next = record(random).dump() + "\n";
    if (out.size() + next.size() <= 800) out += next;
  }
  return out;
}

}  // namespace agon
