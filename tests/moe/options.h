#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>
#include <variant>

#include "moe/router.h"

namespace agon::testing {

struct Setting {
  std::variant<double, std::string> value;
  Setting(double v) : value(v) {}
  Setting(const char* v) : value(std::string(v)) {}
};
using Settings = std::map<std::string, Setting>;

/// Writes settings into the fields of that name, as a config does, and refuses values out of range.
class Apply final : public OptionVisitor {
 public:
  explicit Apply(const Settings& settings) : settings_(settings) {}

  void operator()(const char* name, int64_t& value, Range range, const char*) override { number(name, value, range); }
  void operator()(const char* name, double& value, Range range, const char*) override { number(name, value, range); }
  void operator()(const char* name, bool& value, const char*) override { number(name, value, Range::any()); }
  void operator()(const char* name, std::string& value, const std::vector<std::string>& one_of, const char*) override {
    if (const auto* s = find(name)) {
      value = std::get<std::string>(s->value);
      check(std::find(one_of.begin(), one_of.end(), value) != one_of.end(), name, " = ", value);
    }
  }
  bool all_used() const { return used_.size() == settings_.size(); }

 private:
  const Setting* find(const char* name) {
    const auto found = settings_.find(name);
    if (found == settings_.end()) return nullptr;
    used_.insert(name);
    return &found->second;
  }
  template <class T>
  void number(const char* name, T& value, Range range) {
    if (const auto* s = find(name)) {
      check(range.holds(std::get<double>(s->value)), name, " = ", std::get<double>(s->value), " is out of range");
      value = T(std::get<double>(s->value));
    }
  }

  const Settings& settings_;
  std::set<std::string> used_;
};

inline std::unique_ptr<RouterOptions> router_options(const std::string& strategy, const Settings& settings) {
  auto options = routers().at(strategy)();
  Apply apply(settings);
  options->visit(apply);
  check(apply.all_used(), "a setting that ", strategy, " does not have");
  return options;
}

}  // namespace agon::testing
