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
struct AgreedUserError final : UserError, Agreed {
  using UserError::UserError;
};

/// Runs f on every rank, which must not need the others, and throws on all of them when it failed on one: the same
/// message, naming the ranks that failed with their hosts, `what` and why. A UserError where they all threw one. On one
/// rank what f throws passes through. Collective.
void together(Communicator& comm, const std::string& what, const std::function<void()>& f);

/// UserError on all ranks where they do not give the same texts, by name, in whatever order: for each name that differs
/// what each rank has, "(none)" where it lacks the name. `what` begins the message: "the ranks". Collective.
void require_same(Communicator& comm, const std::string& what, const std::map<std::string, std::string>& texts);

/// `f` on rank 0 alone, as above.
void first_alone(Communicator& comm, const std::string& what, const std::function<void()>& f);

}  // namespace agon
