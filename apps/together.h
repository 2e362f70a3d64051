#pragma once
#include <functional>
#include <string>
#include <vector>

#include "distributed/communicator.h"

namespace agon {

/// Runs `body` on every rank and returns what each rank's returned, by rank. Collective; bodies make no collective
/// calls themselves. Where bodies throw, all ranks throw the same once every body has ended: the failure of the lowest
/// rank, those that are no UserError first, of its kind (Error, UserError, NoPermission) and exit code, its message
/// after "rank R on HOST: ". One rank on its own throws what its body did.
std::vector<std::string> gather(Communicator& comm, const std::function<std::string()>& body);

/// The same for bodies that return nothing.
void together(Communicator& comm, const std::function<void()>& body);

}  // namespace agon
