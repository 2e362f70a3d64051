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

void together(Communicator& comm, const std::string& what, const std::function<void()>& f) {
  if (comm.size() == 1) return f();
  std::string mine;  // the exit code and why; nothing where all is well
  try {
    f();
  } catch (const Error& e) { mine = std::to_string(e.exit_code()) + ' ' + e.what(); } catch (const std::exception& e) {
    mine = std::string("1 ") + e.what();
  }
  const std::vector<std::string> outcomes = all_texts(comm, mine);
  std::map<std::string, std::vector<int>> failed;  // ranks by outcome
  for (int r = 0; r < comm.size(); ++r)
    if (!outcomes[size_t(r)].empty()) failed[outcomes[size_t(r)]].push_back(r);
  if (failed.empty()) return;
  std::string message;
  bool mistake = true;
  for (const auto& [outcome, ranks] : failed) {
    const size_t space = outcome.find(' ');
    mistake = mistake && outcome.substr(0, space) == "2";
    const std::string why = outcome.substr(space + 1);
    if (int(ranks.size()) == comm.size())  // as on one rank
      message = why;
    else
      message += (message.empty() ? "" : "\n") + what + " failed on " + named(ranks, comm) + ": " + why;
  }
  if (mistake) throw AgreedUserError(message);
  throw AgreedError(message);
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

void require_same(Communicator& comm, const std::string& what, const std::map<std::string, std::string>& texts) {
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
  if (!list.empty()) throw AgreedUserError(what + " disagree:" + list);
}

void first_alone(Communicator& comm, const std::string& what, const std::function<void()>& f) {
  together(comm, what, [&] {
    if (comm.rank() == 0) f();
  });
}

}  // namespace agon
