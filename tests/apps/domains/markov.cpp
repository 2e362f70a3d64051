#include <doctest/doctest.h>

#include <map>

#include "apps/domains.h"

using namespace agon;

TEST_CASE("markov: one language in every document, no empty words") {
  Random random({13, 0});
  std::map<std::string, double> halves[2];
  double total[2] = {};
  for (int i = 0; i < 400; ++i) {
    const std::string text = markov_document(random);
    CHECK(text.find("  ") == std::string::npos);
    CHECK(text.find_first_not_of("kzxqvjyaou .\n") == std::string::npos);
    CHECK(text.find('\n') == text.size() - 1);
    for (size_t j = 3; j < text.size(); ++j, ++total[i % 2]) ++halves[i % 2][text.substr(j - 3, 4)];
  }
  double difference = 0;  // total variation between the 4-gram frequencies of both halves
  for (const auto& [gram, n] : halves[0])
    difference += std::abs(n / total[0] - (halves[1].count(gram) ? halves[1][gram] / total[1] : 0));
  CHECK(difference / 2 < 0.15);
  CHECK(halves[0].size() > 500);
  CHECK(halves[0].size() < 6000);
}
