#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace agon {

/// The numbers an option may take: low <= value <= high, the ends excluded where said.
struct Range {
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  bool low_open = false, high_open = false;

  static Range any() { return {}; }
  static Range at_least(double low) { return {low, std::numeric_limits<double>::infinity(), false, false}; }
  static Range above(double low) { return {low, std::numeric_limits<double>::infinity(), true, false}; }
  static Range within(double low, double high) { return {low, high, false, false}; }
  static Range between(double low, double high) { return {low, high, true, true}; }      // both ends excluded
  static Range from_below(double low, double high) { return {low, high, false, true}; }  // low allowed, high not
  bool holds(double v) const { return (low_open ? v > low : v >= low) && (high_open ? v < high : v <= high); }
};

/// Sees each field of an options struct once: name, field, what it may be, meaning in one line. Loading a file,
/// overrides, help, the list of keys and the dump are visitors; the struct's defaults are the schema. A struct is made
/// visitable by
///   void visit(OptionVisitor& v) { v("k", k, Range::above(0), "experts per token"); ... }
class OptionVisitor {
 public:
  virtual ~OptionVisitor() = default;
  virtual void operator()(const char* name, int64_t& value, Range range, const char* help) = 0;
  virtual void operator()(const char* name, double& value, Range range, const char* help) = 0;
  virtual void operator()(const char* name, bool& value, const char* help) = 0;
  /// `one_of` empty: any string.
  virtual void operator()(const char* name, std::string& value, const std::vector<std::string>& one_of,
                          const char* help) = 0;
};

}  // namespace agon
