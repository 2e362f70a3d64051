#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "distributed/communicator.h"

namespace agon {

/// What every rank says, by rank. Collective.
std::vector<std::string> all_texts(Communicator& comm, const std::string& mine);

/// What rank 0 says. Collective.
std::string text_of_first(Communicator& comm, const std::string& text);

/// What an error is besides, when all ranks have it at the same place: none waits for another, so nobody has to be
/// told.
class Agreed {
 public:
  virtual ~Agreed() = default;
};
struct AgreedError final : Error, Agreed {
  using Error::Error;
};

/// Runs `body` on every rank and returns what each rank's returned, by rank. Bodies make no collective calls
/// themselves. Where one throws, all ranks throw the same once every body has ended, and it is Agreed: a message with
/// each reason behind the ranks that have it ("ranks 0, 2 on HOST: no such file"; behind nothing where all have the
/// same), of the worst kind among them (Error, NoPermission, UserError) with its exit code. One rank on its own throws
/// what its body did. Collective.
std::vector<std::string> gather(Communicator& comm, const std::function<std::string()>& body);

/// The same for bodies that return nothing, and for one that rank 0 alone runs.
void together(Communicator& comm, const std::function<void()>& body);
void first_alone(Communicator& comm, const std::function<void()>& body);

/// UserError on all ranks where they do not give the same texts, by name: for each name that differs what each rank
/// has,
/// "(none)" where it lacks the name. Collective.
void require_same(Communicator& comm, const std::map<std::string, std::string>& texts);

}  // namespace agon
