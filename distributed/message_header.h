#pragma once
#include <span>
#include <string>

#include "distributed/call.h"

namespace agon {

/// What each rank of a group sends to each other rank when it comes to a call: as bytes, between machines of one kind.
struct MessageHeader {
  int64_t group = 0, number = 0;  // which call this is: of which group, counted from 1
  int64_t step = 0;               // of the optimizer
  int64_t operation = 0, dtype = 0, extents[4] = {}, dimensions = 0, root = 0;
  int64_t send_rows = 0, receive_rows = 0;     // all_to_all: to and from the rank this goes to
  int64_t color = 0, key = 0, next_group = 0;  // split: what the sender gives, and the first group id it has not seen
};

/// The part for all ranks: without rows and next_group. The call must be without fault.
MessageHeader header_of(const Call& call, int64_t group, int64_t number, int64_t step);

/// How the calls that these headers announce differ, rows aside; `ranks` are the senders' numbers in the world. Empty
/// when they do not.
std::string difference(std::span<const MessageHeader> headers, std::span<const int> ranks);

/// all_to_all: where the rows that rank `me` of the group sends and receives differ from those the others expect and
/// send; empty when they do not.
std::string difference_of_rows(std::span<const MessageHeader> headers, const Call& own, size_t me,
                               std::span<const int> ranks);

}  // namespace agon
