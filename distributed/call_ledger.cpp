#include "distributed/call_ledger.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <sstream>

#include "core/copy.h"

namespace agon {

namespace {

/// A digest that depends on everything mixed in and on its order (the finalizer of SplitMix64).
uint64_t mixed(uint64_t digest, uint64_t value) {
  uint64_t z = digest * 31 + value + 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/// [bytes] u8 of each rank, as strings.
std::vector<std::string> gathered(const std::string& mine, Communicator& control) {
  const std::vector<int32_t> size = {int32_t(mine.size())};
  const Tensor sizes = control.all_gather(tensor_of(size));
  Tensor bytes({int64_t(mine.size())}, DType::u8);
  if (!mine.empty()) std::memcpy(bytes.address(), mine.data(), mine.size());
  const Tensor all = control.all_gather(bytes);
  const char* at = static_cast<const char*>(all.address());
  std::vector<std::string> parts;
  for (const int32_t n : sizes.data<const int32_t>()) {
    parts.emplace_back(at, size_t(n));
    at += n;
  }
  return parts;
}

std::vector<int64_t> numbers(std::istream& line, size_t n) {
  std::vector<int64_t> list(n);
  for (int64_t& v : list) line >> v;
  return list;
}

/// The extents on which ranks must agree.
Shape agreed(const Essence& e) {
  const bool rows = e.operation == Collective::all_to_all || e.operation == Collective::all_gather;
  return rows ? e.shape.with(0, 0) : e.shape;
}

std::vector<int64_t> as_numbers(const Essence& e) {
  const Shape shape = agreed(e);
  std::vector<int64_t> list = {int64_t(e.operation), int64_t(e.dtype), e.root, shape.rank()};
  for (int i = 0; i < shape.rank(); ++i) list.push_back(shape[i]);
  return list;
}

Essence essence_from(std::istream& line) {
  const std::vector<int64_t> head = numbers(line, 4), d = numbers(line, size_t(head[3]));
  const Shape shape = d.empty()       ? Shape{}
                      : d.size() == 1 ? Shape{d[0]}
                      : d.size() == 2 ? Shape{d[0], d[1]}
                      : d.size() == 3 ? Shape{d[0], d[1], d[2]}
                                      : Shape{d[0], d[1], d[2], d[3]};
  return {Collective(head[0]), DType(head[1]), shape, int(head[2])};
}

}  // namespace

int64_t CallLedger::note(const Call& call) {
  Entry entry{++calls_, essence_of(call), {}, {}};
  for (const int64_t v : as_numbers(entry.essence)) digest_ = mixed(digest_, uint64_t(v));
  if (call.operation == Collective::all_to_all) {
    entry.send_rows.assign(call.send_rows.begin(), call.send_rows.end());
    entry.receive_rows.assign(call.receive_rows.begin(), call.receive_rows.end());
    for (size_t r = 0; r < sent_.size(); ++r) {
      sent_[r] = mixed(sent_[r], uint64_t(entry.send_rows[r]));
      received_[r] = mixed(received_[r], uint64_t(entry.receive_rows[r]));
    }
  }
  last_.push_back(std::move(entry));
  if (last_.size() > kKept) last_.pop_front();
  return calls_;
}

std::string CallLedger::compare(Communicator& control) const {
  const size_t n = sent_.size(), each = 2 + 2 * n;
  if (n == 1) return {};
  std::vector<uint64_t> mine = {uint64_t(calls_), digest_};
  mine.insert(mine.end(), sent_.begin(), sent_.end());
  mine.insert(mine.end(), received_.begin(), received_.end());
  Tensor bytes({1, int64_t(each * 8)}, DType::u8);
  std::memcpy(bytes.address(), mine.data(), each * 8);
  const Tensor gathered_bytes = control.all_gather(bytes);
  std::vector<uint64_t> all(n * each);
  std::memcpy(all.data(), gathered_bytes.address(), all.size() * 8);

  bool fits = true;
  for (size_t r = 0; r < n; ++r) {
    fits = fits && all[r * each] == mine[0] && all[r * each + 1] == mine[1];
    for (size_t to = 0; to < n; ++to) fits = fits && all[r * each + 2 + to] == all[to * each + 2 + n + r];
  }
  return fits ? std::string() : find(gathered(history(), control));
}

/// A line for each of the last calls: number, essence, and of all_to_all the rows sent and received.
std::string CallLedger::history() const {
  std::ostringstream lines;
  for (const Entry& e : last_) {
    lines << e.number;
    for (const int64_t v : as_numbers(e.essence)) lines << ' ' << v;
    lines << ' ' << e.send_rows.size();
    for (const auto* rows : {&e.send_rows, &e.receive_rows})
      for (const int64_t v : *rows) lines << ' ' << v;
    lines << '\n';
  }
  return std::move(lines).str();
}

std::string CallLedger::find(const std::vector<std::string>& histories) {
  const size_t n = histories.size();
  std::vector<int> ranks(n);
  std::iota(ranks.begin(), ranks.end(), 0);
  std::vector<std::map<int64_t, Entry>> of(n);
  int64_t first = 1, last = INT64_MAX;  // calls that every rank has made and remembers
  std::string made;
  for (size_t r = 0; r < n; ++r) {
    std::istringstream lines(histories[r]);
    for (std::string text; std::getline(lines, text);) {
      std::istringstream line(text);
      Entry e{};
      size_t counts = 0;
      line >> e.number;
      e.essence = essence_from(line);
      line >> counts;
      e.send_rows = numbers(line, counts);
      e.receive_rows = numbers(line, counts);
      of[r].emplace(e.number, std::move(e));
    }
    const int64_t newest = of[r].empty() ? 0 : of[r].rbegin()->first;
    if (newest) first = std::max(first, of[r].begin()->first);
    last = std::min(last, newest);
    made += text(r ? ", rank " : "rank ", r, ": ", newest);
  }
  for (int64_t number = first; number <= last; ++number) {
    std::vector<Essence> given;
    for (const auto& entries : of) given.push_back(entries.at(number).essence);
    std::string found = difference(given, ranks);
    for (size_t from = 0; from < n && found.empty() && given[0].operation == Collective::all_to_all; ++from)
      for (size_t to = 0; to < n && found.empty(); ++to)
        found = difference_of_counts(int(from), int(to), of[from].at(number).send_rows[to],
                                     of[to].at(number).receive_rows[from]);
    if (!found.empty()) return text("call ", number, " of the group on its GPUs: ", found);
  }
  for (const auto& entries : of)
    if (const auto next = entries.find(last + 1); next != entries.end())
      return text("the ranks have made different numbers of calls on their GPUs (", made, "); call ", last + 1, ", ",
                  next->second.essence.operation, ", is missing on some");
  return text("the ranks disagree on a call on their GPUs before the last ", kKept, " (calls made: ", made, ')');
}

}  // namespace agon
