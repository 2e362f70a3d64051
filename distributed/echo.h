#pragma once
#include <memory>
#include <vector>

#include "distributed/communicator.h"

namespace agon {

/// Rank 0 of `size` ranks of which all others do what it does, without there being any: what one of many ranks takes
/// and moves can be found on one. A call returns what it would if every rank gave the same; rows that another rank
/// would not have sent are zeros. Traffic is counted as if they were there. The first split gives parts[0] ranks, the
/// next parts[1]; parts are not split again.
std::unique_ptr<Communicator> make_echo(int size, std::vector<int> parts);

}  // namespace agon
