#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "distributed/link.h"
#include "distributed/module.h"
#include "distributed/mpi_library.h"

namespace agon {

/// MPI through the module agon_mpi.so, opened once. UserError, saying what to install, where one of them is missing.
const MpiLibrary& open_mpi(const std::vector<std::string>& folders = module_folders());

/// The library's version and where it was found, or why it cannot be used.
std::string mpi_here();

/// This process as a rank of the job that MPI started: alone where nothing launched it. One at a time, and none after
/// the first has ended in an orderly way. Messages longer than `piece` bytes, of which a call of MPI takes less than
/// 2^31, travel in pieces. When it ends otherwise, MPI is left as it is: it is the launcher that ends a job of which
/// one process has exited.
std::unique_ptr<Link> make_mpi_link(const MpiLibrary& mpi, size_t piece = size_t(1) << 30);

}  // namespace agon
