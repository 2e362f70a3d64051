#include "apps/score_options.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "apps/option.h"
#include "core/error.h"

namespace agon {

namespace {

bool changes_scores(std::string_view key) {
  static constexpr std::array others{"k", "scope", "group", "threshold_decay", "balance_scope"};
  return !key.ends_with("_coefficient") && !std::ranges::count(others, key);
}

}  // namespace

std::map<std::string, std::string> score_options(const RouterChoice& choice) {
  std::map<std::string, std::string> all;
  for (const Option& option : options_of(*choice.options))
    if (changes_scores(option.name)) all[option.name] = toml_of(option);
  return all;
}

std::string score_differences(const std::string& strategy_a, const std::map<std::string, std::string>& options_a,
                              const std::string& strategy_b, const std::map<std::string, std::string>& options_b) {
  if (strategy_a != strategy_b) return "strategy: " + strategy_a + " -> " + strategy_b;
  std::string list;
  const auto add = [&](const std::string& key, const std::string& a, const std::string& b) {
    if (a != b) list += (list.empty() ? "" : ", ") + key + ": " + a + " -> " + b;
  };
  for (const auto& [key, value] : options_a) {
    const auto found = options_b.find(key);
    add(key, value, found == options_b.end() ? "(none)" : found->second);
  }
  for (const auto& [key, value] : options_b)
    if (!options_a.contains(key)) add(key, "(none)", value);
  return list;
}

std::string threshold_differences(const RouterChoice& a, const RouterChoice& b) {
  std::string list = score_differences(a.strategy, score_options(a), b.strategy, score_options(b));
  const double before = a.options->experts_per_token(), after = b.options->experts_per_token();
  if (before != after) list += text(list.empty() ? "" : ", ", "k: ", before, " -> ", after);
  return list;
}

}  // namespace agon
