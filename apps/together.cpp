#include "apps/together.h"

#include <algorithm>

#include "apps/file_system.h"
#include "distributed/together.h"

namespace agon {

namespace {

/// How a body ended, as ranks send it to each other: a letter of these, an exit code, a space and a text.
enum Outcome : char { returned = 'r', error = 'e', no_permission = 'p', user_error = 'u' };

std::string outcome_of(const std::function<std::string()>& body) {
  try {
    return text(char(returned), "0 ") + body();
  } catch (const NoPermission& e) { return text(char(no_permission), "2 ", e.what()); } catch (const UserError& e) {
    return text(char(user_error), "2 ", e.what());
  } catch (const Error& e) { return text(char(error), e.exit_code(), ' ', e.what()); } catch (const std::exception& e) {
    return text(char(error), "1 ", e.what());
  }
}

struct AgreedNoPermission final : NoPermission, Agreed {
  using NoPermission::NoPermission;
};

[[noreturn]] void fail(Outcome kind, int code, const std::string& message) {
  if (kind == no_permission) throw AgreedNoPermission(message);
  if (kind == user_error) throw AgreedUserError(message);
  throw AgreedError(message, code);
}

}  // namespace

std::vector<std::string> gather(Communicator& comm, const std::function<std::string()>& body) {
  if (comm.size() == 1) return {body()};
  std::vector<std::string> all = all_texts(comm, outcome_of(body));
  for (const Outcome kind : {error, no_permission, user_error}) {
    const auto found = std::ranges::find_if(all, [&](const std::string& outcome) { return outcome[0] == kind; });
    if (found == all.end()) continue;
    const int rank = int(found - all.begin());
    fail(kind, std::stoi(found->substr(1)),
         text("rank ", rank, " on ", comm.host(rank), ": ", found->substr(found->find(' ') + 1)));
  }
  for (std::string& outcome : all) outcome.erase(0, outcome.find(' ') + 1);
  return all;
}

void together(Communicator& comm, const std::function<void()>& body) {
  gather(comm, [&] { return body(), std::string(); });
}

}  // namespace agon
