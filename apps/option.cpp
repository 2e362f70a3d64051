#include "apps/option.h"

#include <array>
#include <charconv>
#include <cmath>

#include "apps/nearest.h"

namespace agon {

namespace {

template <class T>
std::string digits(T v) {
  std::array<char, 64> room;
  return {room.data(), std::to_chars(room.data(), room.data() + room.size(), v).ptr};
}

std::string bound(double v) {
  const bool integer = std::abs(v) < 1e15 && v == std::floor(v);
  return integer ? digits(int64_t(v)) : digits(v);
}

}  // namespace

void OptionCollector::operator()(const char* name, int64_t& value, Range range, const char* help) {
  options.push_back({name, &value, range, {}, help});
}
void OptionCollector::operator()(const char* name, double& value, Range range, const char* help) {
  options.push_back({name, &value, range, {}, help});
}
void OptionCollector::operator()(const char* name, bool& value, const char* help) {
  options.push_back({name, &value, Range::any(), {}, help});
}
void OptionCollector::operator()(const char* name, std::string& value, const std::vector<std::string>& one_of,
                                 const char* help) {
  options.push_back({name, &value, Range::any(), one_of, help});
}

std::string type_of(const Option& option) {
  static constexpr std::array names{"integer", "number", "boolean", "string"};  // in the order of the variant
  return names[option.field.index()];
}

std::string range_of(const Option& option) {
  if (std::holds_alternative<bool*>(option.field)) return "true | false";
  if (std::holds_alternative<std::string*>(option.field)) return joined(option.one_of, " | ");
  const Range& r = option.range;
  const bool low = std::isfinite(r.low), high = std::isfinite(r.high);
  if (low && high && !r.low_open && !r.high_open) return bound(r.low) + " .. " + bound(r.high);
  std::string range;
  if (low) range += (r.low_open ? "> " : ">= ") + bound(r.low);
  if (low && high) range += ", ";
  if (high) range += (r.high_open ? "< " : "<= ") + bound(r.high);
  return range;
}

std::string expected_of(const Option& option) {
  const std::string range = range_of(option);
  if (std::holds_alternative<bool*>(option.field)) return range;
  if (!option.one_of.empty()) return "one of " + range;
  const std::string type = (type_of(option) == "integer" ? "an " : "a ") + type_of(option);
  if (range.empty()) return type;
  return type + (range.find("..") != range.npos ? " in " : " ") + range;
}

std::string toml_number(double v) {
  std::string number = digits(v);
  if (number.find_first_of(".e") == number.npos) number += ".0";
  return number;
}

std::string toml_string(std::string_view s) {
  std::string quoted = "\"";
  for (const char c : s) {
    const auto byte = uint8_t(c);
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      constexpr std::string_view hex = "0123456789ABCDEF";
      quoted += "\\u00";
      quoted += {hex[byte >> 4], hex[byte & 15]};
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

std::string toml_of(const Option& option) {
  struct Writer {
    std::string operator()(const int64_t* v) const { return digits(*v); }
    std::string operator()(const double* v) const { return toml_number(*v); }
    std::string operator()(const bool* v) const { return *v ? "true" : "false"; }
    std::string operator()(const std::string* v) const { return toml_string(*v); }
  };
  return std::visit(Writer{}, option.field);
}

void copy_options(const std::vector<Option>& from, std::vector<Option> to) {
  for (Option& target : to) {
    for (const Option& source : from) {
      if (source.name != target.name || source.field.index() != target.field.index()) continue;
      std::visit([&]<class T>(T* field) { *field = *std::get<T*>(source.field); }, target.field);
    }
  }
}

}  // namespace agon
