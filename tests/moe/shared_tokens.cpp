#include "moe/shared_tokens.h"

#include <doctest/doctest.h>

#include <numeric>

#include "tests/moe/support.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kWidth = 4;

int64_t tokens_of(int rank) { return rank == 1 ? 0 : 5 + 6 * rank; }

Tensor rows_of(int rank, DType dtype = DType::f64) {
  return random({tokens_of(rank), kWidth}, uint64_t(rank) + 1, 1, dtype);
}

/// All that belongs to rank `r` in a chunk: rows [first, first + n) of its own.
int64_t first_of(const SharedTokens::Chunk& c, int r) {
  return std::accumulate(c.counts.begin(), c.counts.begin() + r, int64_t(0));
}

}  // namespace

TEST_CASE("shared_tokens: every token once, in chunks of every rank's, uneven and with a rank that has none") {
  for (const int ranks : {1, 2, 3, 4})
    for (const int64_t bytes : {int64_t(1), int64_t(900), int64_t(1) << 20})
      run_on_threads(ranks, [&](Communicator& comm) {
        const Tensor x = rows_of(comm.rank());
        const SharedTokens shared(x, bytes, comm, {});
        std::vector<int64_t> seen(size_t(ranks), 0);  // of each rank
        int64_t chunks = 0;
        shared.each_chunk([&](const SharedTokens::Chunk& c) {
          const Tensor all = shared.gathered(c, x);
          check(all.shape() == Shape{c.all, kWidth}, "rows of a chunk");
          const int64_t one_each = ranks * kWidth * 8;
          check(4 * all.bytes() <= std::max(bytes, 4 * one_each), "a chunk of ", all.bytes(), " bytes of ", bytes);
          for (int r = 0; r < ranks; ++r) {
            const int64_t n = c.counts[size_t(r)], first = first_of(c, r);
            int64_t& at = seen[size_t(r)];
            check(identical(slice(all, first, first + n), slice(rows_of(r), at, at + n)), "rank ", r);
            if (r == comm.rank()) check(at == c.first && n == c.mine && first == c.before, "what is this rank's");
            at += n;
          }
          ++chunks;
        });
        for (int r = 0; r < ranks; ++r) check(seen[size_t(r)] == tokens_of(r), "tokens of rank ", r);
        check(bytes == 1 ? chunks == tokens_of(ranks == 2 ? 0 : ranks - 1) : chunks > 0, chunks, " chunks");
      });
}

TEST_CASE("shared_tokens: numbers go to the tokens' ranks and back, sums of rows come home in rank order") {
  for (const int ranks : {1, 2, 4})
    for (const bool own_too : {false, true})
      run_on_threads(ranks, [&](Communicator& comm) {
        constexpr int64_t kEach = 2;
        const ExchangeOptions options{.own_too = own_too};
        const Tensor x = rows_of(comm.rank());
        const SharedTokens shared(x, 700, comm, options);
        const Tensor whole({x.shape(0), kEach * ranks}, DType::f64), sums(x.shape(), DType::f64);
        shared.each_chunk([&](const SharedTokens::Chunk& c) {
          // Expert e says of a row its first element times e + 1; a rank's part of the sum is the row times rank + 1.
          const Tensor all = shared.gathered(c, x), numbers({c.all, kEach}, DType::f64), parts = clone(all);
          for (int64_t i = 0; i < c.all; ++i)
            for (int64_t e = 0; e < kEach; ++e)
              numbers.data<double>()[i * kEach + e] =
                  all.data<double>()[i * kWidth] * double(comm.rank() * kEach + e + 1);
          for (double& v : parts.data<double>()) v *= comm.rank() + 1;
          shared.numbers_home(c, numbers, whole);
          check(identical(shared.numbers_out(c, whole), numbers), "numbers back where they were made");
          shared.sum_home(c, parts, sums);
        });
        for (int64_t t = 0; t < x.shape(0); ++t) {
          for (int64_t e = 0; e < kEach * ranks; ++e)
            check(whole.data<double>()[t * kEach * ranks + e] == x.data<double>()[t * kWidth] * double(e + 1),
                  "number of token ", t, " and expert ", e);
          for (int64_t d = 0; d < kWidth; ++d) {
            double sum = 0;
            for (int r = 0; r < ranks; ++r) sum += x.data<double>()[t * kWidth + d] * (r + 1);
            check(sums.data<double>()[t * kWidth + d] == sum, "sum of token ", t);
          }
        }
      });
}

TEST_CASE("shared_tokens: f32 rows of other ranks are rounded to bf16 where rows are to travel so, the own are not") {
  run_on_threads(3, [&](Communicator& comm) {
    const Tensor x = rows_of(comm.rank(), DType::f32);
    const SharedTokens shared(x, 1 << 20, comm, {.bf16 = true});
    shared.each_chunk([&](const SharedTokens::Chunk& c) {
      const Tensor all = shared.gathered(c, x), sums(x.shape(), DType::f32), parts({c.all, kWidth}, DType::f32);
      for (int r = 0; r < 3; ++r) {
        const Tensor theirs = rows_of(r, DType::f32), there = slice(all, first_of(c, r), first_of(c, r) + tokens_of(r));
        check(identical(there, r == comm.rank() ? theirs : converted(converted(theirs, DType::bf16), DType::f32)),
              "rows of rank ", r);
      }
      fill(parts, 1 + 1.0 / 1024);  // 1 in bf16
      shared.sum_home(c, parts, sums);
      for (float v : sums.data<float>()) check(v == 3 + 1.0f / 1024, "sum ", v);
    });
  });
}
