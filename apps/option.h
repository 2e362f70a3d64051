#pragma once
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/options.h"

namespace agon {

/// One field of an options struct as a value, so that loading, dumping, comparing and listing are loops.
struct Option {
  std::string name;
  std::variant<int64_t*, double*, bool*, std::string*> field;  // lives as long as the struct
  Range range = Range::any();
  std::vector<std::string> one_of;  // empty: any string
  std::string help;
};

/// Collects what it visits.
class OptionCollector final : public OptionVisitor {
 public:
  void operator()(const char* name, int64_t& value, Range range, const char* help) override;
  void operator()(const char* name, double& value, Range range, const char* help) override;
  void operator()(const char* name, bool& value, const char* help) override;
  void operator()(const char* name, std::string& value, const std::vector<std::string>& one_of,
                  const char* help) override;
  std::vector<Option> options;
};

/// The fields of a struct with visit(OptionVisitor&), in its order.
template <class Struct>
std::vector<Option> options_of(Struct& s) {
  OptionCollector collector;
  s.visit(collector);
  return std::move(collector.options);
}

std::string type_of(const Option& option);      ///< integer | number | boolean | string
std::string range_of(const Option& option);     ///< "1 .. 8", "> 0", ">= 0, < 1", "rms | layer"; empty: anything
std::string expected_of(const Option& option);  ///< for messages: "an integer in 1 .. 8"
std::string toml_of(const Option& option);      ///< the value, as TOML that reads back to the same bits

std::string toml_string(std::string_view s);  ///< quoted and escaped
std::string toml_number(double v);  ///< finite; the shortest text that reads back to the same bits, a float in TOML

/// Copies the values of equally named fields of equal type.
void copy_options(const std::vector<Option>& from, std::vector<Option> to);

}  // namespace agon
