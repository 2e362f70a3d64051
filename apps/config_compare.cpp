#include "apps/config_compare.h"

#include <algorithm>

#include "apps/config_sections.h"

namespace agon {

namespace {

bool matches(const std::string& path, std::string_view pattern) {
  if (pattern.ends_with(".*")) return path.starts_with(pattern.substr(0, pattern.size() - 1));
  return path == pattern;
}

struct Value {
  std::string path, toml;
};

std::vector<Value> values_of(const Config& config) {
  Config copy = config;
  std::vector<Value> values;
  for (const ConfigSection& section : sections_of(copy)) {
    for (const Option& option : section.options) values.push_back({section.path(option.name), toml_of(option)});
  }
  return values;
}

}  // namespace

std::span<const std::string> free_on_resume() {
  static const std::vector<std::string> keys{"threads", "device",     "train.steps", "train.out",
                                             "log.*",   "data.train", "data.valid",  "parallel.*"};
  return keys;
}

std::map<std::string, std::string> shared_by_ranks(const Config& config) {
  static const std::vector<std::string> own{"threads",    "device",         "train.out", "log.*",
                                            "data.train", "data.tokenizer", "data.valid"};
  std::map<std::string, std::string> all;
  for (const Value& v : values_of(config))
    if (std::ranges::none_of(own, [&](const std::string& pattern) { return matches(v.path, pattern); }))
      all[v.path] = v.toml;
  all["device"] = config.parsed_device().kind == Device::cpu ? "cpu" : "cuda";
  return all;
}

std::vector<std::string> differences(const Config& a, const Config& b, std::span<const std::string> except) {
  const std::vector<Value> before = values_of(a);
  std::vector<Value> after = values_of(b);
  std::vector<std::string> all;
  const auto compare = [&](const std::string& path, const std::string& old_value, const std::string& new_value) {
    const bool skip = std::ranges::any_of(except, [&](const std::string& pattern) { return matches(path, pattern); });
    if (old_value != new_value && !skip) all.push_back(path + ": " + old_value + " -> " + new_value);
  };
  for (const Value& old : before) {
    const auto found = std::ranges::find(after, old.path, &Value::path);
    compare(old.path, old.toml, found == after.end() ? "(none)" : found->toml);
    if (found != after.end()) after.erase(found);
  }
  for (const Value& added : after) compare(added.path, "(none)", added.toml);
  return all;
}

}  // namespace agon
