#include "distributed/call_ledger.h"

#include <doctest/doctest.h>

#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// What every one of n ranks reads when they compare what `calls` notes.
std::string comparison(int n, const std::function<void(CallLedger&, int rank)>& calls) {
  std::vector<std::string> found(static_cast<size_t>(n));
  run_on_threads(n, [&](Communicator& comm) {
    CallLedger ledger(n);
    calls(ledger, comm.rank());
    found[size_t(comm.rank())] = ledger.compare(comm);
  });
  for (const std::string& f : found) CHECK(f == found[0]);
  return found[0];
}

void reduce(CallLedger& ledger, Shape shape, DType dtype = DType::f32) {
  const Tensor t(shape, dtype);
  ledger.note({.operation = Collective::all_reduce, .tensor = &t});
}

void exchange(CallLedger& ledger, std::vector<int64_t> send, std::vector<int64_t> receive) {
  int64_t rows = 0;
  for (int64_t n : send) rows += n;
  const Tensor t({rows, 2}, DType::f32);
  ledger.note({.operation = Collective::all_to_all, .tensor = &t, .send_rows = send, .receive_rows = receive});
}

}  // namespace

TEST_CASE("call ledger: the same calls fit, whatever belongs to each rank") {
  CHECK(comparison(1, [](CallLedger& l, int) { reduce(l, {3}); }) == "");
  CHECK(comparison(3, [](CallLedger&, int) {}) == "");
  CHECK(comparison(3, [](CallLedger& l, int rank) {
          for (int i = 0; i < 100; ++i) reduce(l, {3, i}, i % 2 ? DType::bf16 : DType::f32);
          const Tensor own({rank, 4}, DType::f32);
          l.note({.operation = Collective::all_gather, .tensor = &own});
          const int64_t n = rank;
          exchange(l, {n, 10 + n, 20 + n}, {10 * n, 10 * n + 1, 10 * n + 2});
          CHECK(l.calls() == 102);
        }) == "");
}

TEST_CASE("call ledger: says which call differed, and what each rank gave") {
  const std::string shapes = comparison(3, [](CallLedger& l, int rank) {
    reduce(l, {3});
    reduce(l, {rank == 1 ? 5 : 4, 2});
    reduce(l, {6});
  });
  CHECK(
      shapes.find("call 2 of the group on its GPUs: the ranks disagree; ranks 0, 2: all_reduce of f32 [4, 2]; rank 1: "
                  "all_reduce of f32 [5, 2]") == 0);
  CHECK(comparison(2, [](CallLedger& l, int rank) {
          reduce(l, {3}, rank ? DType::f32 : DType::bf16);
        }).find("rank 1: all_reduce of f32 [3]") != std::string::npos);
  CHECK(comparison(2, [](CallLedger& l, int rank) {
          const Tensor t({3}, DType::f32);
          l.note({.operation = Collective::broadcast, .tensor = &t, .root = rank});
        }).find("from rank 1") != std::string::npos);
}

TEST_CASE("call ledger: the order of calls counts") {
  CHECK(comparison(2, [](CallLedger& l, int rank) {
          reduce(l, {3 + rank});
          reduce(l, {4 - rank});
        }).find("call 1 of the group") == 0);
}

TEST_CASE("call ledger: rows that one rank sends and another does not expect") {
  CHECK(comparison(2, [](CallLedger& l, int rank) {
          if (rank == 0) {
            exchange(l, {1, 2}, {1, 3});
            exchange(l, {1, 2}, {1, 4});
          } else {
            exchange(l, {3, 0}, {2, 0});
            exchange(l, {4, 0}, {3, 0});
          }
        }) == "call 2 of the group on its GPUs: all_to_all: rank 0 sends 2 rows to rank 1, which expects 3");
}

TEST_CASE("call ledger: a call that one rank has not made, and one that is long ago") {
  const std::string missing = comparison(3, [](CallLedger& l, int rank) {
    reduce(l, {3});
    if (rank != 1) reduce(l, {4});
  });
  CHECK(missing ==
        "the ranks have made different numbers of calls on their GPUs (rank 0: 2, rank 1: 1, rank 2: 2); call 2, "
        "all_reduce, is missing on some");
  CHECK(comparison(2, [](CallLedger& l, int rank) {
          reduce(l, {3 + rank});
          for (int i = 0; i < 100; ++i) reduce(l, {1});
        }).find("before the last 64 (calls made: rank 0: 101, rank 1: 101)") != std::string::npos);
  CHECK(comparison(2, [](CallLedger& l, int rank) {
          for (int i = 0; i < (rank ? 100 : 10); ++i) reduce(l, {1});
        }).find("rank 0: 10, rank 1: 100") != std::string::npos);
}
