#include "apps/data_options.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>

using namespace agon;

namespace {

/// Notes each key's default as text.
struct Defaults final : OptionVisitor {
  std::map<std::string, std::string> found;
  void operator()(const char* name, int64_t& value, Range range, const char*) override {
    CHECK(range.holds(double(value)));
    found[name] = std::to_string(value);
  }
  void operator()(const char* name, double& value, Range range, const char*) override {
    CHECK(range.holds(value));
    found[name] = std::to_string(value);
  }
  void operator()(const char* name, bool& value, const char*) override { found[name] = value ? "true" : "false"; }
  void operator()(const char* name, std::string& value, const std::vector<std::string>& one_of, const char*) override {
    CHECK((one_of.empty() || std::ranges::find(one_of, value) != one_of.end()));
    found[name] = value;
  }
};

}  // namespace

TEST_CASE("data options: the keys scripts use, and defaults that their own ranges allow") {
  DataOptions options;
  Defaults defaults;
  options.visit(defaults);
  CHECK(defaults.found.at("train") == "builtin:domains");
  CHECK(defaults.found.at("valid").empty());
  CHECK(defaults.found.at("tokenizer") == "bytes");
  CHECK(defaults.found.at("mask_documents") == "false");
  CHECK(defaults.found.size() == 8);
}
