#include "apps/domains.h"

#include <array>

#include "core/error.h"

namespace agon {

const std::vector<std::string>& domain_names() {
  static const std::vector<std::string> names{"prose", "arithmetic", "json", "markov", "code"};
  return names;
}

std::vector<Document> builtin_domains(int64_t bytes, uint64_t seed) {
  check(bytes > 0, "a corpus of ", bytes, " bytes");
  constexpr std::array makers{prose_document, arithmetic_document, json_document, markov_document, code_document};
  std::vector<Document> documents;
  const RandomKey key{seed, 0x646f6d61696e73};
  for (int64_t left = bytes; left > 0;) {
    Random random(key.with(documents.size()));
    const auto label = int(random.below(makers.size()));
    documents.push_back({makers[size_t(label)](random), label});
    left -= int64_t(documents.back().text.size());
  }
  return documents;
}

}  // namespace agon
