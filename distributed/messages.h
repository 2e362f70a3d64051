#pragma once
#include <memory>

#include "distributed/communicator.h"
#include "distributed/link.h"

namespace agon {

/// Ranks that reach each other by messages; tensors are on the CPU. Every call begins with a header from each rank to
/// each other rank, so that all know what the others mean before anything is changed, and every wait has an end: a rank
/// that has waited for `deadline` fails, and tells all others why. Collective over the ranks of the link: they meet to
/// learn their hosts' names, and again when the last communicator made from this one dies.
std::unique_ptr<Communicator> make_message_communicator(std::unique_ptr<Link> link, CommunicatorOptions options);

}  // namespace agon
