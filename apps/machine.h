#pragma once
#include <string>

namespace agon {

/// The processor's name as the system gives it, or "unknown".
std::string processor_name();

}  // namespace agon
