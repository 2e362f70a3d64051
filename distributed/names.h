#pragma once
#include <chrono>
#include <cstdint>
#include <span>
#include <string>

namespace agon {

/// "rank 3 (host)".
std::string named(int rank, const std::string& host);

/// "ranks 0-3, 7"; "rank 5".
std::string listed(std::span<const int> ranks);

/// "call 57 of ranks 0-3": where in the life of a group of ranks, numbered as in the world, something happened.
std::string named_call(int64_t number, std::span<const int> ranks);

/// "250 ms", "60 s".
std::string duration(std::chrono::milliseconds time);

}  // namespace agon
