#pragma once
#include <string>

namespace agon {

/// The name of the machine this process runs on.
std::string this_host();

}  // namespace agon
