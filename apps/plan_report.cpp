#include "apps/plan_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "apps/log.h"

namespace agon {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kRows =
    "A token's row goes to each other rank that has experts of its. Of T tokens with k different experts each, all as\n"
    "likely, T (1 - C(E - e, k) / C(E, k)) rows go to each of the R - 1 other ranks, which hold e = E / R of the E "
    "experts, "
    "and\nT k / R pairs with them; between whole k on a straight line.";

int least(const LayoutComparison& c, bool only_fitting, auto&& key) {
  int best = -1;
  for (size_t i = 0; i < c.layouts.size(); ++i)
    if ((!only_fitting || c.fits(c.layouts[i])) && (best < 0 || key(c.layouts[i]) < key(c.layouts[size_t(best)])))
      best = int(i);
  return best;
}

std::string named(const Layout& l) { return fmt::format("{} x {}", l.expert, l.data()); }

std::string mark(const LayoutComparison& c, size_t i) {
  return fmt::format("{}{}", int(i) == c.least_moved() ? '*' : ' ', int(i) == c.least_memory() ? '+' : ' ');
}

std::string line(const LayoutComparison& c, size_t i, const std::vector<int64_t>& bytes) {
  const Layout& l = c.layouts[i].layout;
  std::string s = fmt::format("{} {:<14}{:<7}", mark(c, i), named(l), l.shard_optimizer ? "yes" : "no");
  for (const int64_t b : bytes) s += fmt::format("{:>12}", short_bytes(double(b)));
  return s;
}

std::string head(const std::vector<std::string>& columns) {
  std::string s = fmt::format("   {:<14}{:<7}", "expert x data", "shard");
  for (const std::string& c : columns) s += fmt::format("{:>12}", c);
  return s + '\n';
}

}  // namespace

int LayoutComparison::least_moved() const {
  return least(*this, true, [](const LayoutCosts& c) { return std::pair(c.moved(), c.memory.total()); });
}

int LayoutComparison::least_memory() const {
  return least(*this, false, [](const LayoutCosts& c) { return std::pair(c.memory.total(), c.moved()); });
}

std::string plan_table(const LayoutComparison& c, const Config& config) {
  const bool bounded = config.parallel.exchange == "bounded";
  std::string s =
      "\nmemory of a rank\n" + head({"arena", "exchange", "parameters", "gradients", "optimizer", "text", "total"});
  for (size_t i = 0; i < c.layouts.size(); ++i) {
    const auto& [layout, m, buffers, e, n, out, home, lists, gradients, masters, others, most] = c.layouts[i];
    s += line(c, i, {m.arena - buffers, buffers, m.parameters, m.gradients, m.optimizer, m.text, m.total()}) +
         (c.fits(c.layouts[i]) ? "\n" : "  too much\n");
  }
  if (c.layouts.empty() || c.layouts[0].layout.ranks == 1) return s + "one rank sends nothing\n";
  s += fmt::format("\nbytes that a rank sends in a step, and receives{}\n",
                   bounded ? "" : ", rows as under even routing");
  s += head({"rows out", "rows home", "lists", "gradients", "masters", "others", "total"});
  for (size_t i = 0; i < c.layouts.size(); ++i) {
    const LayoutCosts& l = c.layouts[i];
    s += line(c, i, {l.out, l.home, l.lists, l.gradients, l.masters, l.others, l.moved()}) + '\n';
  }
  s += "\none exchange of rows (a layer, a micro-batch, one way)\n";
  s += fmt::format("   {:<21}{:>12}{:>12}{:>12}{:>12}{:>12}\n", "experts over", "rows", "pairs", "bytes", "of weights",
                   "a step has");
  int64_t before = 0, most = 0;
  for (const LayoutCosts& l : c.layouts) {
    most = std::max(most, l.most_in_competition);
    if (l.layout.expert == before || l.layout.expert == 1) continue;
    before = l.layout.expert;
    s += fmt::format("   {:<21}{:>12}{:>12}{:>12}{:>12}{:>12}\n", fmt::format("{} ranks", before), l.exchange.rows,
                     l.exchange.pairs, short_bytes(double(l.exchange.row_bytes)),
                     short_bytes(double(l.exchange.weight_bytes)), fmt::format("4 x {}", l.exchanges));
  }
  if (before == 0) s += "   none: the experts are not spread\n";
  s += "\n* moves the least";
  if (c.room) s += fmt::format(" of those that take no more than {}", short_bytes(double(c.room)));
  s += "   + needs the least memory\n";
  s +=
      bounded ? "Rows: parallel.exchange_bound times those of even routing, full or not.\n" : std::string(kRows) + '\n';
  if (most)
    s += fmt::format("Steps in which layers compete move more: up to {} of rows and lists at the first weights.\n",
                     short_bytes(double(most)));
  return s + "Parameters, gradients, optimizer and what is not rows or lists are exact. No time is predicted.\n";
}

std::string plan_json(const LayoutComparison& c, const Config& config, const std::string& source) {
  Json j = {{"schema", 1},
            {"config", source},
            {"ranks", c.layouts.empty() ? 0 : c.layouts[0].layout.ranks},
            {"device", config.device},
            {"precision", config.precision},
            {"exchange", config.parallel.exchange},
            {"rows", config.parallel.exchange == "bounded" ? "bounds" : "even routing"},
            {"least_moved", c.least_moved()},
            {"least_memory", c.least_memory()},
            {"layouts", Json::array()}};
  if (c.room) j["room"] = c.room;
  for (const LayoutCosts& l : c.layouts) {
    const MemoryUse& m = l.memory;
    Json one = {{"expert", l.layout.expert},
                {"data", l.layout.data()},
                {"shard_optimizer", l.layout.shard_optimizer},
                {"fits", c.fits(l)},
                {"memory",
                 {{"arena", m.arena - l.buffers},
                  {"exchange", l.buffers},
                  {"parameters", m.parameters},
                  {"gradients", m.gradients},
                  {"optimizer", m.optimizer},
                  {"text", m.text},
                  {"total", m.total()}}},
                {"one_exchange",
                 {{"rows", l.exchange.rows},
                  {"pairs", l.exchange.pairs},
                  {"row_bytes", l.exchange.row_bytes},
                  {"weight_bytes", l.exchange.weight_bytes},
                  {"list_bytes", l.exchange.list_bytes},
                  {"in_a_step", l.exchanges}}},
                {"bytes_sent_in_a_step",
                 {{"rows_out", l.out},
                  {"rows_home", l.home},
                  {"lists", l.lists},
                  {"gradients", l.gradients},
                  {"masters", l.masters},
                  {"others", l.others},
                  {"total", l.moved()}}}};
    if (l.most_in_competition) one["bytes_of_exchange_at_most_in_competition"] = l.most_in_competition;
    j["layouts"].push_back(std::move(one));
  }
  return j.dump(1) + '\n';
}

}  // namespace agon
