#include "distributed/call.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

namespace agon {

namespace {

std::string listed(std::span<const int64_t> numbers) {
  std::string s = "{";
  for (int64_t n : numbers) s += (s.size() > 1 ? ", " : "") + std::to_string(n);
  return s + "}";
}

/// The part of a call on which ranks must agree, in words.
std::string essence(const Call& c) {
  switch (c.operation) {
    case Collective::barrier:
    case Collective::split:
      return text(c.operation);
    case Collective::broadcast:
      return text(c.operation, " of ", c.tensor->dtype(), ' ', c.tensor->shape(), " from rank ", c.root);
    case Collective::all_reduce:
    case Collective::reduce_scatter:
      return text(c.operation, " of ", c.tensor->dtype(), ' ', c.tensor->shape());
    case Collective::all_gather:
    case Collective::all_to_all: {
      std::string row;
      for (int i = 1; i < c.tensor->shape().rank(); ++i) row += text(i > 1 ? ", " : "", c.tensor->shape(i));
      return text(c.operation, " of rows of ", c.tensor->dtype(), " [", row, ']');
    }
  }
  return {};
}

bool adds(Collective c) { return c == Collective::all_reduce || c == Collective::reduce_scatter; }
bool moves_rows(Collective c) {
  return c == Collective::all_to_all || c == Collective::all_gather || c == Collective::reduce_scatter;
}

/// What is wrong with one rank's call, whatever the others give.
std::string fault(const Call& c, int64_t size) {
  if (c.operation == Collective::barrier || c.operation == Collective::split) return {};
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
        return text("gave ", what, listed(rows), "; expected ", size, " counts of at least 0");
    if (std::accumulate(c.send_rows.begin(), c.send_rows.end(), int64_t(0)) != shape[0])
      return text("gave ", shape, " with send_rows ", listed(c.send_rows), ", whose sum is another");
  }
  return {};
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
  }
  return os;
}

std::string disagreement(std::span<const Call> calls, std::span<const int> ranks) {
  const size_t n = calls.size();
  for (size_t r = 0; r < n; ++r)
    if (const std::string found = fault(calls[r], int64_t(n)); !found.empty())
      return text(calls[r].operation, ": rank ", ranks[r], ' ', found);

  std::vector<std::pair<std::string, std::string>> kinds;  // essence, the ranks that gave it
  for (size_t r = 0; r < n; ++r) {
    const std::string what = essence(calls[r]), who = std::to_string(ranks[r]);
    const auto kind = std::ranges::find(kinds, what, &std::pair<std::string, std::string>::first);
    if (kind == kinds.end())
      kinds.emplace_back(what, who);
    else
      kind->second += ", " + who;
  }
  if (kinds.size() > 1) {
    std::string message = "the ranks disagree";
    for (const auto& [what, who] : kinds) message += "; rank " + who + ": " + what;
    return message;
  }

  if (calls[0].operation == Collective::all_to_all)
    for (size_t from = 0; from < n; ++from)
      for (size_t to = 0; to < n; ++to)
        if (const int64_t sent = calls[from].send_rows[to], expected = calls[to].receive_rows[from]; sent != expected)
          return text("all_to_all: rank ", ranks[from], " sends ", sent, " rows to rank ", ranks[to],
                      ", which expects ", expected);
  return {};
}

}  // namespace agon
