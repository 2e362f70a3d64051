#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/random.h"

namespace agon {

/// A text whose kind is known.
struct Document {
  std::string text;
  int label;  // index into domain_names()
};

/// "prose", "arithmetic", "json", "markov", "code".
const std::vector<std::string>& domain_names();

/// The first documents, of about 200 to 800 bytes each, that have `bytes` bytes together, domains mixed at random with
/// about equal bytes. A function of (bytes, seed) alone; a longer corpus begins with the shorter one.
std::vector<Document> builtin_domains(int64_t bytes, uint64_t seed);

// One document each.
std::string prose_document(Random& random);       ///< a grammar with agreement over distance (apps/domains/prose.h)
std::string arithmetic_document(Random& random);  ///< sums, differences and products, worked digit by digit
std::string json_document(Random& random);        ///< nested records whose parts refer to each other by id
std::string markov_document(Random& random);      ///< a language of syllables, each drawn given the two before it
std::string code_document(Random& random);        ///< small programs: names defined before use, the result of each call

}  // namespace agon
