#pragma once
#include <string>
#include <vector>

#include "distributed/module.h"
#include "distributed/nccl_library.h"

namespace agon {

/// NCCL through the module agon_nccl.so, opened once. UserError, saying what to install, where the module or the
/// library is missing or too old.
const NcclLibrary& open_nccl(const std::vector<std::string>& folders = module_folders());

/// "2.28.9" of 22809.
std::string nccl_version_text(int version);

/// The library's version and where it was found, or why it cannot be used.
std::string nccl_here();

/// What an error code of NCCL means: the code's text, the library's last words, and what to do about it where that is
/// known. `communicator` may be null.
std::string explain_nccl(const NcclLibrary& library, int code, void* communicator);

}  // namespace agon
