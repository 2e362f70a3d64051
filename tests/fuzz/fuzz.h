#pragma once
#include <cstdint>
#include <string_view>

#include "core/error.h"

namespace agon::testing {

/// Runs `read` on the bytes. Whatever a file holds, a reader either takes it or refuses it with a UserError; any other
/// exception leaves this function, which libFuzzer reports.
template <class F>
int refuses_or_takes(const uint8_t* data, size_t size, F&& read) {
  try {
    read(std::string_view(reinterpret_cast<const char*>(data), size));
  } catch (const UserError&) {}
  return 0;
}

}  // namespace agon::testing
