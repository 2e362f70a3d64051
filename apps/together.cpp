#include "apps/together.h"

#include <algorithm>
#include <cstring>

#include "apps/file_system.h"

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

std::vector<std::string> all_gather(Communicator& comm, const std::string& own) {
  const uint64_t bytes = own.size();
  const Tensor length({1, sizeof bytes}, DType::u8), contents({int64_t(bytes)}, DType::u8);
  std::memcpy(length.data<uint8_t>().data(), &bytes, sizeof bytes);
  std::copy(own.begin(), own.end(), contents.data<uint8_t>().begin());
  const Tensor lengths = comm.all_gather(length), all = comm.all_gather(contents);
  std::vector<std::string> texts;
  const char* at = static_cast<const char*>(all.address());
  for (int r = 0; r < comm.size(); ++r) {
    uint64_t n = 0;
    std::memcpy(&n, lengths.data<uint8_t>().data() + size_t(r) * sizeof n, sizeof n);
    texts.emplace_back(at, size_t(n));
    at += n;
  }
  return texts;
}

[[noreturn]] void fail(Outcome kind, int code, const std::string& message) {
  if (kind == no_permission) throw NoPermission(message);
  if (kind == user_error) throw UserError(message);
  throw Error(message, code);
}

}  // namespace

std::vector<std::string> gather(Communicator& comm, const std::function<std::string()>& body) {
  if (comm.size() == 1) return {body()};
  std::vector<std::string> all = all_gather(comm, outcome_of(body));
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
