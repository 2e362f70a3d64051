#include "distributed/together.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "core/copy.h"

namespace agon {

namespace {

Tensor bytes_of(const std::string& text) {
  Tensor t({int64_t(text.size())}, DType::u8);
  if (!text.empty()) std::memcpy(t.data<uint8_t>().data(), text.data(), text.size());
  return t;
}

std::string text_of(std::span<const uint8_t> bytes) { return {bytes.begin(), bytes.end()}; }

/// "rank 2 on HOST", "ranks 0, 3 on HOST".
std::string named(const std::vector<int>& ranks, Communicator& comm) {
  std::string list;
  for (size_t i = 0; i < ranks.size(); ++i) {
    list += (i ? ", " : ranks.size() > 1 ? "ranks " : "rank ") + std::to_string(ranks[i]);
    if (i + 1 == ranks.size() || comm.host(ranks[i]) != comm.host(ranks[i + 1])) list += " on " + comm.host(ranks[i]);
  }
  return list;
}

}  // namespace

std::vector<std::string> all_texts(Communicator& comm, const std::string& mine) {
  const Arena::Outside outside;
  const Tensor sizes = comm.all_gather(tensor_of<int32_t>({int32_t(mine.size())})),
               all = comm.all_gather(bytes_of(mine));
  std::vector<std::string> texts;
  size_t at = 0;
  for (const int32_t n : sizes.data<const int32_t>()) {
    texts.push_back(text_of(all.data<const uint8_t>().subspan(at, size_t(n))));
    at += size_t(n);
  }
  return texts;
}

std::string text_of_first(Communicator& comm, const std::string& text) {
  return all_texts(comm, comm.rank() == 0 ? text : "").front();
}

namespace {

struct AgreedUserError final : UserError, Agreed {
  using UserError::UserError;
};
struct AgreedNoPermission final : NoPermission, Agreed {
  using NoPermission::NoPermission;
};

/// How a body ended, as ranks tell each other: a letter of these, an exit code, a space, and what it returned or why.
/// The worse, the earlier in the alphabet.
enum Outcome : char { error = 'a', no_permission = 'b', user_error = 'c', returned = 'd' };

std::string outcome_of(const std::function<std::string()>& body) {
  const auto told = [](Outcome kind, int code, const std::string& why) { return text(char(kind), code, ' ', why); };
  try {
    return told(returned, 0, body());
  } catch (const NoPermission& e) { return told(no_permission, e.exit_code(), e.what()); } catch (const UserError& e) {
    return told(user_error, e.exit_code(), e.what());
  } catch (const Error& e) { return told(error, e.exit_code(), e.what()); } catch (const std::exception& e) {
    return told(error, 1, e.what());
  }
}

std::string told(const std::string& outcome) { return outcome.substr(outcome.find(' ') + 1); }

/// `outcomes` by rank, at least one of which is no return.
[[noreturn]] void fail(const std::vector<std::string>& outcomes, Communicator& comm) {
  std::vector<std::pair<std::string, std::vector<int>>> reasons;
  const std::string* worst = &outcomes[0];
  for (int r = 0; r < comm.size(); ++r) {
    const std::string& outcome = outcomes[size_t(r)];
    if (outcome[0] < (*worst)[0]) worst = &outcome;
    if (outcome[0] == returned) continue;
    const auto known = std::ranges::find(reasons, told(outcome), [](const auto& reason) { return reason.first; });
    if (known == reasons.end())
      reasons.push_back({told(outcome), {r}});
    else
      known->second.push_back(r);
  }
  std::string message;
  for (const auto& [why, ranks] : reasons)
    message +=
        (message.empty() ? "" : "; ") + (int(ranks.size()) == comm.size() ? why : named(ranks, comm) + ": " + why);
  if ((*worst)[0] == user_error) throw AgreedUserError(message);
  if ((*worst)[0] == no_permission) throw AgreedNoPermission(message);
  throw AgreedError(message, std::stoi(worst->substr(1)));
}

}  // namespace

std::vector<std::string> gather(Communicator& comm, const std::function<std::string()>& body) {
  if (comm.size() == 1) return {body()};
  std::vector<std::string> all = all_texts(comm, outcome_of(body));
  if (std::ranges::any_of(all, [](const std::string& outcome) { return outcome[0] != returned; })) fail(all, comm);
  for (std::string& outcome : all) outcome = told(outcome);
  return all;
}

void together(Communicator& comm, const std::function<void()>& body) {
  gather(comm, [&] { return body(), std::string(); });
}

namespace {

/// Texts one after the other, each behind its length, and back.
std::string packed(const std::map<std::string, std::string>& texts) {
  std::string all;
  for (const auto& pair : texts)
    for (const std::string& s : {pair.first, pair.second}) all += std::to_string(s.size()) + ' ' + s;
  return all;
}

std::map<std::string, std::string> unpacked(const std::string& all) {
  std::map<std::string, std::string> texts;
  size_t at = 0;
  const auto next = [&] {
    const size_t space = all.find(' ', at), n = std::stoull(all.substr(at, space - at));
    at = space + 1 + n;
    return all.substr(space + 1, n);
  };
  while (at < all.size()) {
    const std::string name = next();
    texts[name] = next();
  }
  return texts;
}

}  // namespace

void require_same(Communicator& comm, const std::map<std::string, std::string>& texts) {
  if (comm.size() == 1) return;
  std::map<std::string, std::map<std::string, std::vector<int>>> given;  // name -> text -> ranks
  const std::vector<std::string> all = all_texts(comm, packed(texts));
  std::vector<std::map<std::string, std::string>> of_rank;
  for (const std::string& one : all) of_rank.push_back(unpacked(one));
  for (const auto& one : of_rank)
    for (const auto& pair : one) given[pair.first];
  for (auto& [name, values] : given)
    for (int r = 0; r < comm.size(); ++r) {
      const auto it = of_rank[size_t(r)].find(name);
      values[it == of_rank[size_t(r)].end() ? "(none)" : it->second].push_back(r);
    }
  std::string list;
  for (const auto& [name, values] : given) {
    if (values.size() == 1) continue;
    list += "\n  " + name + ": ";
    bool first = true;
    for (const auto& [value, ranks] : values) {
      list += (first ? "" : ", ") + value + " on " + named(ranks, comm);
      first = false;
    }
  }
  if (!list.empty()) throw AgreedUserError("the ranks disagree:" + list);
}

void first_alone(Communicator& comm, const std::function<void()>& body) {
  together(comm, [&] {
    if (comm.rank() == 0) body();
  });
}

}  // namespace agon
