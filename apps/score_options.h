#pragma once
#include <map>
#include <string>

#include "apps/config.h"

namespace agon {

/// The options of a layer that its scores depend on, as TOML by key: all but the budget (k), which tokens compete
/// (scope, group), how thresholds are learned (threshold_decay), and what only losses read (coefficients and
/// balance_scope).
std::map<std::string, std::string> score_options(const RouterChoice& choice);

/// "alpha: 0.5 -> 0.3, ..." where the strategies or their score_options differ; "" where they agree.
std::string score_differences(const std::string& strategy_a, const std::map<std::string, std::string>& options_a,
                              const std::string& strategy_b, const std::map<std::string, std::string>& options_b);

/// Likewise for what learned thresholds depend on: these, and the budget.
std::string threshold_differences(const RouterChoice& a, const RouterChoice& b);

}  // namespace agon
