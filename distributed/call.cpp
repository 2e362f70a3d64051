#include "distributed/call.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "distributed/names.h"

namespace agon {

namespace {

std::string braced(std::span<const int64_t> numbers) {
  std::string s = "{";
  for (int64_t n : numbers) s += (s.size() > 1 ? ", " : "") + std::to_string(n);
  return s + "}";
}

/// What a rank calls, in words.
std::string words(const Essence& c) {
  switch (c.operation) {
    case Collective::barrier:
    case Collective::split:
    case Collective::end:
      return text(c.operation);
    case Collective::broadcast:
      return text(c.operation, " of ", c.dtype, ' ', c.shape, " from rank ", c.root);
    case Collective::all_reduce:
    case Collective::reduce_scatter:
      return text(c.operation, " of ", c.dtype, ' ', c.shape);
    case Collective::all_gather:
    case Collective::all_to_all: {
      std::string row;
      for (int i = 1; i < c.shape.rank(); ++i) row += text(i > 1 ? ", " : "", c.shape[i]);
      return text(c.operation, " of rows of ", c.dtype, " [", row, ']');
    }
  }
  return {};
}

bool adds(Collective c) { return c == Collective::all_reduce || c == Collective::reduce_scatter; }
bool takes_tensor(Collective c) { return c != Collective::barrier && c != Collective::split && c != Collective::end; }
bool moves_rows(Collective c) {
  return c == Collective::all_to_all || c == Collective::all_gather || c == Collective::reduce_scatter;
}

}  // namespace

std::ostream& operator<<(std::ostream& os, Collective c) {
  switch (c) {
    case Collective::all_to_all:
      return os << "all_to_all";
    case Collective::all_reduce:
      return os << "all_reduce";
    case Collective::broadcast:
      return os << "broadcast";
    case Collective::all_gather:
      return os << "all_gather";
    case Collective::reduce_scatter:
      return os << "reduce_scatter";
    case Collective::barrier:
      return os << "barrier";
    case Collective::split:
      return os << "split";
    case Collective::end:
      return os << "end";
  }
  return os;
}

Essence essence_of(const Call& call) {
  if (!takes_tensor(call.operation)) return {.operation = call.operation};
  return {call.operation, call.tensor->dtype(), call.tensor->shape(), call.root};
}

std::string fault(const Call& c, int64_t size) {
  if (!takes_tensor(c.operation)) return {};
  if (!c.tensor || !*c.tensor) return "gave an empty tensor";
  const Shape& shape = c.tensor->shape();
  if (const DType t = c.tensor->dtype(); adds(c.operation) && !is_float(t) && t != DType::i32)
    return text("gave ", t, "; sums are of f32, bf16, f64 or i32");
  if (moves_rows(c.operation) && shape.rank() == 0) return "gave a tensor without rows";
  if (c.operation == Collective::reduce_scatter && shape[0] % size)
    return text("gave ", shape, ", whose rows do not divide over ", size, " ranks");
  if (c.operation == Collective::broadcast && (c.root < 0 || c.root >= size))
    return text("named root ", c.root, " of ", size, " ranks");
  if (c.operation == Collective::all_to_all) {
    for (const auto& [rows, what] : {std::pair(c.send_rows, "send_rows "), std::pair(c.receive_rows, "receive_rows ")})
      if (int64_t(rows.size()) != size || std::ranges::any_of(rows, [](int64_t n) { return n < 0; }))
        return text("gave ", what, braced(rows), "; expected ", size, " counts of at least 0");
    if (std::accumulate(c.send_rows.begin(), c.send_rows.end(), int64_t(0)) != shape[0])
      return text("gave ", shape, " with send_rows ", braced(c.send_rows), ", whose sum is another");
  }
  return {};
}

std::string difference(std::span<const Essence> calls, std::span<const int> ranks) {
  std::vector<std::pair<std::string, std::vector<int>>> kinds;  // what is called, the ranks that call it
  for (size_t r = 0; r < calls.size(); ++r) {
    const std::string what = words(calls[r]);
    const auto kind = std::ranges::find(kinds, what, &std::pair<std::string, std::vector<int>>::first);
    if (kind == kinds.end())
      kinds.push_back({what, {ranks[r]}});
    else
      kind->second.push_back(ranks[r]);
  }
  if (kinds.size() <= 1) return {};
  std::string message = "the ranks disagree";
  for (const auto& [what, who] : kinds) message += "; " + listed(who) + ": " + what;
  return message;
}

std::string difference_of_counts(int from, int to, int64_t sent, int64_t expected) {
  if (sent == expected) return {};
  return text("all_to_all: rank ", from, " sends ", sent, " rows to rank ", to, ", which expects ", expected);
}

std::string disagreement(std::span<const Call> calls, std::span<const int> ranks) {
  const size_t n = calls.size();
  std::vector<Essence> essences;
  for (size_t r = 0; r < n; ++r) {
    if (const std::string found = fault(calls[r], int64_t(n)); !found.empty())
      return text(calls[r].operation, ": rank ", ranks[r], ' ', found);
    essences.push_back(essence_of(calls[r]));
  }
  if (const std::string found = difference(essences, ranks); !found.empty()) return found;
  if (calls[0].operation == Collective::all_to_all)
    for (size_t from = 0; from < n; ++from)
      for (size_t to = 0; to < n; ++to)
        if (const std::string found =
                difference_of_counts(ranks[from], ranks[to], calls[from].send_rows[to], calls[to].receive_rows[from]);
            !found.empty())
          return found;
  return {};
}

}  // namespace agon
