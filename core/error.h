#pragma once
#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>

namespace agon {

/// Something failed. `exit_code` is what a program that cannot recover should return.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message, int exit_code = 1) : std::runtime_error(message), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

/// The user's mistake: arguments, configuration, data, an incompatible checkpoint.
class UserError : public Error {
 public:
  explicit UserError(const std::string& message) : Error(message, 2) {}
};

/// What is there may not be touched by this user. Says nothing of what it holds.
class NoPermission : public UserError {
  using UserError::UserError;
};

/// The parts, streamed one after the other.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream s;
  (s << ... << parts);
  return std::move(s).str();
}

/// A condition together with the place it was written, so that `check` needs no macro.
struct Condition {
  bool holds;
  std::source_location where;
  template <class B>
  Condition(const B& b, std::source_location w = std::source_location::current())
      : holds(static_cast<bool>(b)), where(w) {}
};

/// Throws `Error` made of the parts, ending with the place of the call, unless the condition holds.
template <class... Parts>
void check(Condition c, const Parts&... parts) {
  if (c.holds) [[likely]]
    return;
  throw Error(text(parts..., " [", c.where.file_name(), ':', c.where.line(), ']'));
}

/// Throws `UserError` made of the parts, unless the condition holds. Say what was found and what was expected.
template <class... Parts>
void require(bool holds, const Parts&... parts) {
  if (!holds) [[unlikely]]
    throw UserError(text(parts...));
}

}  // namespace agon
