#include "apps/settings.h"

#include <algorithm>
#include <cmath>

#include "apps/nearest.h"
#include "apps/utf8.h"
#include "core/error.h"

namespace agon {

namespace {

/// Stores a setting in an option; false when its type or range forbids it. An integer is a number; a number is an
/// integer when it is one exactly.
struct Store {
  const Option& option;
  const Setting& setting;

  bool operator()(int64_t* field) const {
    if (const auto* number = std::get_if<double>(&setting.value)) {
      constexpr double kExact =
          9007199254740992;  // 2^53: below it a double that is an integer is the one that was written
      if (!(std::abs(*number) < kExact) || *number != std::trunc(*number)) return false;
      *field = int64_t(*number);
    } else if (const auto* integer = std::get_if<int64_t>(&setting.value)) {
      *field = *integer;
    } else {
      return false;
    }
    return option.range.holds(double(*field));
  }
  bool operator()(double* field) const {
    if (const auto* integer = std::get_if<int64_t>(&setting.value))
      *field = double(*integer);
    else if (const auto* number = std::get_if<double>(&setting.value))
      *field = *number;
    else
      return false;
    return std::isfinite(*field) && option.range.holds(*field);
  }
  bool operator()(bool* field) const {
    const auto* given = std::get_if<bool>(&setting.value);
    return given && (*field = *given, true);
  }
  bool operator()(std::string* field) const {
    const auto* given = std::get_if<std::string>(&setting.value);
    if (!given || (!option.one_of.empty() && !std::ranges::count(option.one_of, *given))) return false;
    *field = *given;
    return true;
  }
};

bool is_utf8(std::string_view s) {
  while (!s.empty()) {
    const size_t n = utf8_length(s);
    if (n == 0) return false;
    s.remove_prefix(n);
  }
  return true;
}

}  // namespace

std::string found(const Setting& setting) {
  struct Describe {
    std::string operator()(int64_t v) const { return "integer " + std::to_string(v); }
    std::string operator()(double v) const { return text("number ", v); }
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(const std::string& v) const { return "string \"" + printable(v) + '"'; }
    std::string operator()(const Unsupported& v) const { return v.what; }
  };
  return std::visit(Describe{}, setting.value);
}

void store(const Option& option, const std::string& path, const Setting& setting) {
  const auto* word = std::get_if<std::string>(&setting.value);
  require(!word || is_utf8(*word), setting.place.exact(), ": ", path, ": found ", found(setting), ", expected UTF-8");
  if (std::visit(Store{option, setting}, option.field)) return;
  std::string hint;
  if (word && !option.one_of.empty()) {
    if (const std::string meant = nearest(*word, option.one_of); !meant.empty())
      hint = "; did you mean \"" + meant + "\"?";
  }
  const bool quote = !word && std::holds_alternative<std::string*>(option.field) && setting.place.line == 0;
  if (quote) hint = "; a string that looks like something else is written '" + path + "=\"...\"'";
  throw UserError(
      text(setting.place.exact(), ": ", path, ": found ", found(setting), ", expected ", expected_of(option), hint));
}

}  // namespace agon
