#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <vector>

#include "core/parallel.h"

// Selection by the digits of keys on the CPU: whole numbers, in blocks of fixed size.
namespace agon::cpu {

/// The whole number that stands for v: the same order, both zeros one, a NaN below everything.
template <class S>
auto key_of(S v) {
  using K = std::conditional_t<std::is_same_v<S, double>, uint64_t, uint32_t>;
  constexpr K kSign = K(1) << (8 * sizeof(K) - 1);
  const K bits = std::bit_cast<K>(v + S(0));
  return v == v ? K(bits & kSign ? ~bits : bits | kSign) : K(0);
}
template <class S>
using Key = decltype(key_of(S()));
template <class S>
S value_of(Key<S> key) {
  constexpr Key<S> kSign = Key<S>(1) << (8 * sizeof(S) - 1);
  return std::bit_cast<S>(Key<S>(key & kSign ? key ^ kSign : ~key));
}

/// The least of the n largest of some keys, how many of the n are equal to it, and how many of all keys are.
template <class K>
struct Cut {
  K key = 0;
  int64_t taken = 0, equal = 0;
};

/// Of 1 <= n <= keys.size(). `keys` are scratch afterwards.
template <class K>
Cut<K> nth_largest(std::vector<K>& keys, int64_t n) {
  constexpr int64_t kBlock = 8192, kFew = 64;
  const auto size = int64_t(keys.size());
  if (size <= kFew) {
    std::nth_element(keys.begin(), keys.begin() + n - 1, keys.end(), std::greater<>());
    const K key = keys[size_t(n - 1)];
    const auto above = std::count_if(keys.begin(), keys.end(), [=](K k) { return k > key; });
    return {key, n - above, std::count(keys.begin(), keys.end(), key)};
  }
  using Counts = std::array<int32_t, 256>;
  const auto blocks = size_t((size + kBlock - 1) / kBlock);
  std::vector<int64_t> left(blocks);  // of each block: the keys that share the digits found so far, moved to its front
  std::vector<Counts> counts(blocks);
  for (size_t b = 0; b < blocks; ++b) left[b] = std::min(kBlock, size - int64_t(b) * kBlock);
  Cut<K> cut{0, n, size};
  for (int shift = 8 * int(sizeof(K)) - 8; shift >= 0; shift -= 8) {
    parallel_tasks(int64_t(blocks), [&](int64_t b) {
      const K* const block = keys.data() + b * kBlock;
      Counts& count = counts[size_t(b)];
      Counts odd{};  // two chains of additions, for neighbours are alike
      count = {};
      int64_t i = 0;
      for (; i + 1 < left[size_t(b)]; i += 2) {
        ++count[(block[i] >> shift) & 255];
        ++odd[(block[i + 1] >> shift) & 255];
      }
      if (i < left[size_t(b)]) ++count[(block[i] >> shift) & 255];
      for (size_t d = 0; d < count.size(); ++d) count[d] += odd[d];
    });
    size_t digit = 255;
    for (;; --digit) {
      cut.equal = 0;
      for (const Counts& count : counts) cut.equal += count[digit];
      if (cut.taken <= cut.equal) break;
      cut.taken -= cut.equal;
    }
    cut.key |= K(digit) << shift;
    parallel_tasks(int64_t(blocks), [&](int64_t b) {
      K* const block = keys.data() + b * kBlock;
      int64_t kept = 0;
      for (int64_t i = 0; i < left[size_t(b)]; ++i) {
        const K key = block[i];
        block[kept] = key;
        kept += ((key >> shift) & 255) == digit;
      }
      left[size_t(b)] = kept;
    });
  }
  return cut;
}

}  // namespace agon::cpu
