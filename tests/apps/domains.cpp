#include "apps/domains.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>

using namespace agon;

namespace {

constexpr size_t kLabels = 5;

/// Naive Bayes over byte frequencies, with one count added to each.
class UnigramClassifier {
 public:
  void learn(const Document& d) {
    for (char c : d.text) ++count_[size_t(d.label)][uint8_t(c)];
  }
  int classify(const std::string& text) const {
    std::array<double, kLabels> score{};
    for (size_t label = 0; label < kLabels; ++label) {
      double total = 256;
      for (double n : count_[label]) total += n;
      for (char c : text) score[label] += std::log((count_[label][uint8_t(c)] + 1) / total);
    }
    return int(std::max_element(score.begin(), score.end()) - score.begin());
  }

 private:
  std::array<std::array<double, 256>, kLabels> count_{};
};

/// Bits per byte of a model that knows how often each byte comes after the `order` bytes before it.
double conditional_entropy(const std::string& text, size_t order) {
  std::map<std::string, std::map<char, double>> counts;
  for (size_t i = order; i < text.size(); ++i) ++counts[text.substr(i - order, order)][text[i]];
  double bits = 0;
  for (const auto& [context, next] : counts) {
    double total = 0;
    for (const auto& [c, n] : next) total += n;
    for (const auto& [c, n] : next) bits -= n * std::log2(n / total);
  }
  return bits / double(text.size());
}

}  // namespace

TEST_CASE("domains: the corpus is a function of size and seed, a longer one begins with a shorter one") {
  const auto a = builtin_domains(40'000, 3), b = builtin_domains(40'000, 3), longer = builtin_domains(60'000, 3),
             other = builtin_domains(40'000, 4);
  REQUIRE(a.size() == b.size());
  REQUIRE(longer.size() > a.size());
  int64_t bytes = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].text == b[i].text);
    CHECK(a[i].label == b[i].label);
    CHECK(a[i].text == longer[i].text);
    bytes += int64_t(a[i].text.size());
  }
  CHECK(bytes >= 40'000);
  CHECK(bytes < 41'000);
  CHECK(a[0].text != other[0].text);
}

TEST_CASE("domains: the corpus is the same on every machine") {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const Document& d : builtin_domains(200'000, 1))
    for (char c : d.text) hash = (hash ^ uint8_t(c)) * 0x100000001b3u;
  CHECK(hash == 9072453820096192983u);
}

TEST_CASE("domains: about equal bytes of each label, documents of a few hundred") {
  std::array<double, kLabels> bytes{};
  double total = 0;
  REQUIRE(domain_names().size() == kLabels);
  for (const Document& d : builtin_domains(400'000, 1)) {
    REQUIRE(d.label >= 0);
    REQUIRE(d.label < int(kLabels));
    CHECK(d.text.size() >= 200);
    CHECK(d.text.size() <= 900);
    CHECK(d.text.back() == '\n');
    bytes[size_t(d.label)] += double(d.text.size());
    total += double(d.text.size());
  }
  for (double b : bytes) {
    CHECK(b / total > 0.15);
    CHECK(b / total < 0.25);
  }
}

TEST_CASE("domains: byte frequencies tell the labels apart") {
  const auto documents = builtin_domains(400'000, 1);
  UnigramClassifier classifier;
  size_t right = 0, asked = 0;
  for (size_t i = 0; i < documents.size() / 2; ++i) classifier.learn(documents[i]);
  for (size_t i = documents.size() / 2; i < documents.size(); ++i, ++asked)
    right += classifier.classify(documents[i].text) == documents[i].label;
  CHECK(asked > 100);
  CHECK(double(right) / double(asked) >= 0.95);
}

TEST_CASE("domains: the text is far more predictable than its byte frequencies") {
  std::string text;
  for (const Document& d : builtin_domains(400'000, 1)) text += d.text;
  const double unigram = conditional_entropy(text, 0);
  CHECK(unigram > 4);
  CHECK(conditional_entropy(text, 2) < unigram - 2);
  CHECK(conditional_entropy(text, 1) < unigram - 1);
}
