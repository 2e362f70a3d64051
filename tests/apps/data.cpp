#include "apps/data.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "tests/support/message.h"

using namespace agon;
using test::check_contains, test::user_error;

namespace {

/// Tokens 0, 1, 2, ... as if they were bytes, so that a token says where it stands (below 256 of them).
Corpus counting(int64_t n) {
  Corpus c;
  c.tokenizer = make_byte_tokenizer();
  c.train.id.resize(size_t(n));
  std::iota(c.train.id.begin(), c.train.id.end(), 0);
  c.train.source = "counting";
  return c;
}

std::vector<int32_t> ids(const Tensor& t) { return {t.data<int32_t>().begin(), t.data<int32_t>().end()}; }

DataOptions ordered(const char* order) {
  DataOptions o;
  o.order = order;
  return o;
}

}  // namespace

TEST_CASE("data: permuted is a permutation that depends on its key") {
  for (int64_t n : {1, 2, 3, 5, 16, 17, 100, 1000}) {
    std::set<int64_t> seen;
    for (int64_t i = 0; i < n; ++i) seen.insert(permuted(i, n, 7, 0));
    CHECK(int64_t(seen.size()) == n);
    CHECK(*seen.begin() == 0);
    CHECK(*seen.rbegin() == n - 1);
  }
  int64_t same_seed = 0, same_stream = 0, fixed = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    same_seed += permuted(i, 1000, 7, 0) == permuted(i, 1000, 8, 0);
    same_stream += permuted(i, 1000, 7, 0) == permuted(i, 1000, 7, 1);
    fixed += permuted(i, 1000, 7, 0) == i;
  }
  CHECK(same_seed < 20);
  CHECK(same_stream < 20);
  CHECK(fixed < 20);
  CHECK_THROWS_AS((void)permuted(5, 5, 0, 0), Error);
}

TEST_CASE("data: every order stays within the text, for every length") {
  for (const char* order : {"shuffled", "random", "sequential"})
    for (int64_t tokens = 5; tokens < 40; ++tokens) {
      const DataOrder o(order, tokens, 4, 3);
      for (int64_t n = 0; n < 100; ++n) {
        const int64_t at = o.offset(n);
        CHECK(at >= 0);
        CHECK(at + 5 <= tokens);
      }
    }
  check_contains(user_error([] { (void)DataOrder("sorted", 10, 4, 1); }), {"sorted", "shuffled"});
}

TEST_CASE("data: a shuffled epoch has every window once, and epochs differ") {
  const DataOrder o("shuffled", 1000, 8, 3);
  std::vector<int64_t> epochs[2];
  for (int64_t e = 0; e < 2; ++e) {
    for (int64_t n = 0; n < o.windows(); ++n) epochs[e].push_back(o.offset(e * o.windows() + n));
    std::vector<int64_t> sorted = epochs[e];
    std::sort(sorted.begin(), sorted.end());
    for (size_t i = 1; i < sorted.size(); ++i) CHECK(sorted[i] == sorted[i - 1] + 8);
    CHECK_FALSE(std::is_sorted(epochs[e].begin(), epochs[e].end()));
  }
  CHECK(epochs[0] != epochs[1]);
  CHECK(DataOrder("shuffled", 1000, 8, 3).offset(77) == o.offset(77));
  CHECK(DataOrder("shuffled", 1000, 8, 4).offset(77) != o.offset(77));
}

TEST_CASE("data: random offsets are spread over the whole text") {
  const DataOrder o("random", 1000, 8, 3);
  double mean = 0;
  int64_t low = 1000, high = 0;
  for (int64_t n = 0; n < 4000; ++n) {
    mean += double(o.offset(n)) / 4000;
    low = std::min(low, o.offset(n));
    high = std::max(high, o.offset(n));
  }
  CHECK(mean == doctest::Approx(495.5).epsilon(0.05));
  CHECK(low < 5);
  CHECK(high > 986);
  CHECK(high <= 991);
}

TEST_CASE("data: a batch is tokens, the ones that follow, positions and offsets") {
  const Corpus c = counting(50);
  const TrainingData data(c, ordered("sequential"), 4, 3, 1);
  const Batch b = data.batch(1);
  CHECK(ids(b.token) == std::vector<int32_t>{12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23});
  CHECK(ids(b.target) == std::vector<int32_t>{13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24});
  CHECK(ids(b.position) == std::vector<int32_t>{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3});
  CHECK(ids(b.offsets) == std::vector<int32_t>{0, 4, 8, 12});
  CHECK(b.first_row == 12);
  CHECK(b.bytes == 12);
  CHECK(data.tokens_per_step() == 12);
  CHECK(data.epochs(25) == doctest::Approx(6));
}

TEST_CASE("data: the order does not depend on ranks or micro-batches") {
  const Corpus c = counting(250);
  for (const char* order : {"shuffled", "random", "sequential"}) {
    const TrainingData data(c, ordered(order), 5, 12, 9);
    for (int64_t step : {0, 1, 17}) {
      const std::vector<int32_t> whole = ids(data.batch(step).token);
      for (auto [micros, ranks] : {std::pair{1, 4}, {3, 1}, {2, 3}, {3, 4}, {12, 1}}) {
        std::vector<int32_t> joined;
        int64_t row = step * 60;
        for (int64_t m = 0; m < micros; ++m)
          for (int64_t r = 0; r < ranks; ++r) {
            const Batch b = data.batch(step, {m, micros, r, ranks});
            CHECK(b.first_row == row);
            row += b.token.size();
            for (int32_t id : ids(b.token)) joined.push_back(id);
          }
        CHECK(joined == whole);
      }
    }
    CHECK_THROWS_AS((void)data.batch(0, {0, 5, 0, 1}), Error);
  }
}

TEST_CASE("data: masked documents are sequences of their own, which their separator begins") {
  Corpus c = counting(0);
  c.train.id = {'a', 'b', 256, 'c', 256, 256, 'd', 'e', 256};
  DataOptions o = ordered("sequential");
  const Batch plain = TrainingData(c, o, 8, 1, 1).batch(0);
  CHECK(ids(plain.offsets) == std::vector<int32_t>{0, 8});
  o.mask_documents = true;
  const Batch b = TrainingData(c, o, 8, 1, 1).batch(0);
  CHECK(ids(b.token) == ids(plain.token));
  CHECK(ids(b.target) == ids(plain.target));
  CHECK(ids(b.offsets) == std::vector<int32_t>{0, 2, 4, 5, 8});
  CHECK(ids(b.position) == std::vector<int32_t>{0, 1, 0, 1, 0, 0, 1, 2});
  CHECK(b.bytes == 4);
}

TEST_CASE("data: text shorter than a sequence is refused with the numbers") {
  const Corpus c = counting(8);
  check_contains(user_error([&] { TrainingData(c, ordered("shuffled"), 8, 1, 1); }),
                 {"counting", "8 tokens", "at least 9"});
  TrainingData(c, ordered("shuffled"), 7, 1, 1).batch(0);
}

TEST_CASE("data: evaluation counts every target once, the last window shorter") {
  const Corpus c = counting(0);
  for (int64_t n = 2; n < 30; ++n) {
    Tokens tokens{std::vector<int32_t>(size_t(n)), "valid"};
    std::iota(tokens.id.begin(), tokens.id.end(), 0);
    const EvaluationData data(tokens, *c.tokenizer, {}, 4);
    CHECK(data.targets() == n - 1);
    std::vector<int32_t> targets;
    int64_t bytes = 0;
    for (int64_t w = 0; w < data.windows(); w += 3) {
      const Batch b = data.batch(w, 3);
      CHECK(b.first_row == w * 4);
      CHECK(ids(b.offsets).back() == b.token.size());
      for (int32_t id : ids(b.target)) targets.push_back(id);
      for (size_t i = 0; i < ids(b.token).size(); ++i) CHECK(ids(b.token)[i] + 1 == ids(b.target)[i]);
      bytes += b.bytes;
    }
    CHECK(targets == std::vector<int32_t>(tokens.id.begin() + 1, tokens.id.end()));
    CHECK(bytes == n - 1);
    const Batch beyond = data.batch(data.windows(), 2);
    CHECK(beyond.token.size() == 0);
    CHECK(ids(beyond.offsets) == std::vector<int32_t>{0});
  }
}

TEST_CASE("data: evaluation of a limited number of targets, and of too little") {
  const Corpus c = counting(100);
  const EvaluationData data(c.train, *c.tokenizer, {}, 8, 20);
  CHECK(data.targets() == 20);
  CHECK(data.windows() == 3);
  CHECK(data.batch(2, 5).token.size() == 4);
  CHECK(EvaluationData(c.train, *c.tokenizer, {}, 8, 1000).targets() == 99);
  const Tokens one{{7}, "tiny.txt"};
  check_contains(user_error([&] { EvaluationData(one, *c.tokenizer, {}, 8); }), {"tiny.txt", "at least 2"});
}
