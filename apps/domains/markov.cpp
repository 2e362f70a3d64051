#include <algorithm>
#include <array>

#include "apps/domains.h"

// A language without meaning: syllables, of which each is drawn given the two before it from a fixed random table. The
// syllable before alone leaves 3 bits, both leave about 2, so there is an easy part to learn and a long tail of
// contexts.

namespace agon {

namespace {

constexpr size_t kSyllables = 48, kFollowers = 8;
constexpr uint64_t kTable = 20240902;  // the language is the same in every corpus

/// 0 is the end of a word.
const std::array<std::string, kSyllables>& syllables() {
  static const std::array<std::string, kSyllables> made = [] {
    std::array<std::string, kSyllables> s;
    constexpr std::string_view onsets = "kzxqvjykzxvj", vowels = "aouy";
    s[0] = " ";
    for (size_t i = 1; i < kSyllables; ++i) s[i] = {onsets[(i - 1) / 4], vowels[(i - 1) % 4]};
    for (size_t i = 29; i < kSyllables; ++i) s[i] += i % 2 ? 'k' : 'z';  // the onsets that come again
    return s;
  }();
  return made;
}

/// What may follow b, in the order of how often it does after a: the set depends on b alone.
using Followers = std::array<uint8_t, kFollowers>;

std::vector<Followers> make_table() {
  std::vector<Followers> table(kSyllables * kSyllables);
  Random random({kTable, 0});
  for (size_t b = 0; b < kSyllables; ++b) {
    std::array<uint8_t, kSyllables> order{};
    for (size_t i = 0; i < kSyllables; ++i) order[i] = uint8_t(i);
    for (size_t i = 0; i < kFollowers; ++i) std::swap(order[i], order[i + random.below(kSyllables - i)]);
    Followers set{};
    std::copy_n(order.begin(), kFollowers, set.begin());
    const bool has_end = std::find(set.begin(), set.end(), 0) != set.end();
    if (b != 0 && !has_end) set[0] = 0;                                                         // every word can end
    if (b == 0 && has_end) *std::find(set.begin(), set.end(), 0) = uint8_t(order[kFollowers]);  // and none is empty
    for (size_t a = 0; a < kSyllables; ++a) {
      for (size_t i = kFollowers; i > 1; --i) std::swap(set[i - 1], set[random.below(i)]);
      table[a * kSyllables + b] = set;
    }
  }
  return table;
}

/// An index with probabilities 0.42, 0.22, 0.13, 0.09, 0.06, 0.04, 0.02, 0.02.
size_t skewed(Random& random) {
  constexpr std::array<double, kFollowers - 1> until{0.42, 0.64, 0.77, 0.86, 0.92, 0.96, 0.98};
  return size_t(std::upper_bound(until.begin(), until.end(), random.uniform()) - until.begin());
}

}  // namespace

std::string markov_document(Random& random) {
  static const std::vector<Followers> table = make_table();
  const size_t length = 220 + size_t(random.below(420));
  std::string out;
  size_t a = 0, b = 0, words = 4 + size_t(random.below(8));
  while (out.size() < length || b != 0) {
    const size_t next = table[a * kSyllables + b][skewed(random)];
    if (next == 0 && --words == 0) {
      out += '.';
      words = 4 + size_t(random.below(8));
    }
    out += syllables()[next];
    a = b;
    b = next;
  }
  out.back() = '\n';
  return out;
}

}  // namespace agon
