#pragma once
#include <memory>
#include <string>

#include "distributed/communicator.h"

namespace agon::testing {

/// What one rank does in the middle of its work, instead of a collective call.
struct Fault {
  std::string how;  ///< kill, segv, throw, exit0, exit3, stop; full: its disk, slow: by a second; both from then on
  int rank = -1;    ///< of all
  std::string operation;  ///< the kind of call, as it is printed
  int number = 0;         ///< which of them, from 1, over all groups
};

/// "kill@1:all_reduce:7"; "" is none.
Fault parse_fault(const std::string& text);

/// Passes every call on to `inner`, except where the fault strikes, which leaves the file `mark` unless that is "".
std::unique_ptr<Communicator> with_fault(std::unique_ptr<Communicator> inner, const Fault& fault,
                                         const std::string& mark);

}  // namespace agon::testing
