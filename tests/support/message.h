#pragma once
#include <doctest/doctest.h>

#include <string>

#include "core/error.h"

namespace agon::test {

/// The message of the UserError that f throws; empty, and a failed check, when it throws none.
template <class F>
std::string user_error(F&& f) {
  try {
    f();
  } catch (const UserError& e) { return e.what(); }
  FAIL_CHECK("expected a UserError");
  return {};
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

/// Checks that each part stands in `text`, showing both when one does not.
inline void check_contains(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    INFO("message: ", text);
    INFO("lacks: ", std::string(part));
    CHECK(contains(text, part));
  }
}

}  // namespace agon::test
