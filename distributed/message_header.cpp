#include "distributed/message_header.h"

#include <algorithm>
#include <vector>

namespace agon {

namespace {

Shape shape_of(const MessageHeader& h) {
  const int64_t* n = h.extents;
  switch (h.dimensions) {
    case 0:
      return {};
    case 1:
      return {n[0]};
    case 2:
      return {n[0], n[1]};
    case 3:
      return {n[0], n[1], n[2]};
    default:
      return {n[0], n[1], n[2], n[3]};
  }
}

}  // namespace

MessageHeader header_of(const Call& call, int64_t group, int64_t number, int64_t step) {
  const Essence e = essence_of(call);
  MessageHeader h{.group = group, .number = number, .step = step, .operation = int64_t(e.operation)};
  h.dtype = int64_t(e.dtype);
  h.dimensions = e.shape.rank();
  for (int i = 0; i < e.shape.rank(); ++i) h.extents[i] = e.shape[i];
  h.root = e.root;
  h.color = call.color;
  h.key = call.key;
  return h;
}

std::string difference(std::span<const MessageHeader> headers, std::span<const int> ranks) {
  std::vector<Essence> essences;
  for (size_t r = 0; r < headers.size(); ++r) {
    const MessageHeader &h = headers[r], &first = headers[0];
    if (h.group != first.group || h.number != first.number)
      return text("rank ", ranks[0], " is in call ", first.number, " of group ", first.group, ", rank ", ranks[r],
                  " in call ", h.number, " of group ", h.group);
    essences.push_back({Collective(h.operation), DType(h.dtype), shape_of(h), int(h.root)});
  }
  std::string found = difference(essences, ranks);
  if (!found.empty() && std::ranges::any_of(headers, [&](auto& h) { return h.step != headers[0].step; })) {
    found += "; their steps:";
    for (const MessageHeader& h : headers) found += text(' ', h.step);
  }
  return found;
}

std::string difference_of_rows(std::span<const MessageHeader> headers, const Call& own, size_t me,
                               std::span<const int> ranks) {
  for (size_t r = 0; r < headers.size(); ++r) {
    const std::string there = difference_of_counts(ranks[me], ranks[r], own.send_rows[r], headers[r].receive_rows),
                      here = difference_of_counts(ranks[r], ranks[me], headers[r].send_rows, own.receive_rows[r]);
    if (!there.empty() || !here.empty()) return there.empty() ? here : there;
  }
  return {};
}

}  // namespace agon
