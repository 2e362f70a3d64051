#pragma once
#include <string>
#include <vector>

#include "apps/layout_costs.h"

namespace agon {

/// The layouts of a model beside each other.
struct LayoutComparison {
  std::vector<LayoutCosts> layouts;
  int64_t room = 0;  // bytes that a rank may take; 0: not given

  bool fits(const LayoutCosts& c) const { return room == 0 || c.memory.total() <= room; }
  /// Of those that fit, which moves the least, and of these which needs the least memory; -1: none fits.
  int least_moved() const;
  /// Which needs the least memory, and of these which moves the least.
  int least_memory() const;
};

/// Two tables, memory and bytes, and how they were found.
std::string plan_table(const LayoutComparison& comparison, const Config& config);

/// All figures. `source` names the configuration.
std::string plan_json(const LayoutComparison& comparison, const Config& config, const std::string& source);

}  // namespace agon
