#include "distributed/names.h"

#include "core/error.h"

namespace agon {

std::string named(int rank, const std::string& host) { return text("rank ", rank, " (", host, ')'); }

std::string listed(std::span<const int> ranks) {
  std::string list = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size();) {
    size_t end = i + 1;  // of neighbours
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    list += (i ? ", " : "") + std::to_string(ranks[i]);
    if (end - i > 1) list += (end - i > 2 ? "-" : ", ") + std::to_string(ranks[end - 1]);
    i = end;
  }
  return list;
}

std::string named_call(int64_t number, std::span<const int> ranks) {
  return text("call ", number, " of ", listed(ranks));
}

std::string duration(std::chrono::milliseconds time) {
  return time < std::chrono::seconds(10) ? text(time.count(), " ms") : text(time.count() / 1000, " s");
}

}  // namespace agon
