#include "distributed/call.h"

#include <doctest/doctest.h>

#include <vector>

using namespace agon;

namespace {

const int kRanks[] = {4, 5, 9};

Call reduce(const Tensor& t) { return {.operation = Collective::all_reduce, .tensor = &t}; }

std::string check_calls(const std::vector<Call>& calls) {
  return disagreement(calls, std::span(kRanks).first(calls.size()));
}

}  // namespace

TEST_CASE("call: equal calls agree") {
  const Tensor a({2, 3}, DType::f32), b({5, 3}, DType::f32), none({0, 3}, DType::f32);
  CHECK(check_calls({reduce(a), reduce(a), reduce(a)}).empty());
  const auto gather = [](const Tensor& t) { return Call{.operation = Collective::all_gather, .tensor = &t}; };
  CHECK(check_calls({gather(a), gather(b), gather(none)}).empty());  // rows may differ
  CHECK(check_calls({{}, {}, {}}).empty());
  CHECK(check_calls({{.operation = Collective::split, .color = 1}, {.operation = Collective::split, .color = 2}})
            .empty());
}

TEST_CASE("call: a disagreement names operation, shape, dtype and ranks") {
  const Tensor a({2, 3}, DType::f32), b({3, 2}, DType::f32), c({2, 3}, DType::bf16);
  CHECK(check_calls({reduce(a), reduce(b), reduce(a)}) ==
        "the ranks disagree; ranks 4, 9: all_reduce of f32 [2, 3]; rank 5: all_reduce of f32 [3, 2]");
  CHECK(check_calls({reduce(a), reduce(c)}) ==
        "the ranks disagree; rank 4: all_reduce of f32 [2, 3]; rank 5: all_reduce of bf16 [2, 3]");
  CHECK(check_calls({{}, reduce(a)}) == "the ranks disagree; rank 4: barrier; rank 5: all_reduce of f32 [2, 3]");
  const auto gather = [](const Tensor& t) { return Call{.operation = Collective::all_gather, .tensor = &t}; };
  CHECK(check_calls({gather(a), gather(b)}) ==
        "the ranks disagree; rank 4: all_gather of rows of f32 [3]; rank 5: all_gather of rows of f32 [2]");
  const auto broadcast = [&](int root) { return Call{.operation = Collective::broadcast, .tensor = &a, .root = root}; };
  CHECK(check_calls({broadcast(0), broadcast(1)}) ==
        "the ranks disagree; rank 4: broadcast of f32 [2, 3] from rank 0; rank 5: broadcast of f32 [2, 3] from rank 1");
}

TEST_CASE("call: one rank's mistake is named") {
  const Tensor a({5, 3}, DType::f32), bytes({5, 3}, DType::u8), scalar({}, DType::f32), none;
  CHECK(check_calls({reduce(a), reduce(none)}) == "all_reduce: rank 5 gave an empty tensor");
  CHECK(check_calls({reduce(bytes), reduce(bytes)}) == "all_reduce: rank 4 gave u8; sums are of f32, bf16, f64 or i32");
  const auto broadcast = [&](int root) {
    return Call{.operation = Collective::broadcast, .tensor = &bytes, .root = root};
  };
  CHECK(check_calls({broadcast(1), broadcast(1)}).empty());
  CHECK(check_calls({broadcast(2), broadcast(2)}) == "broadcast: rank 4 named root 2 of 2 ranks");
  CHECK(check_calls({broadcast(-1), broadcast(-1)}) == "broadcast: rank 4 named root -1 of 2 ranks");
  const Call scatter{.operation = Collective::reduce_scatter, .tensor = &a},
      row{.operation = Collective::all_gather, .tensor = &scalar};
  CHECK(check_calls({scatter, scatter}) == "reduce_scatter: rank 4 gave [5, 3], whose rows do not divide over 2 ranks");
  CHECK(check_calls({row, row}) == "all_gather: rank 4 gave a tensor without rows");
}

TEST_CASE("call: counts of all_to_all") {
  const Tensor a({5, 3}, DType::f32);
  const auto call = [&](const std::vector<int64_t>& send, const std::vector<int64_t>& receive) {
    return Call{.operation = Collective::all_to_all, .tensor = &a, .send_rows = send, .receive_rows = receive};
  };
  const std::vector<int64_t> all{5, 0}, swapped{0, 5}, some{2, 3}, other{3, 2}, short_list{5}, negative{6, -1};
  CHECK(check_calls({call(some, some), call(other, other)}).empty());
  CHECK(check_calls({call(all, some), call(other, other)}) ==
        "all_to_all: rank 4 sends 5 rows to rank 4, which expects 2");
  CHECK(check_calls({call(all, swapped), call(all, swapped)}) ==
        "all_to_all: rank 4 sends 5 rows to rank 4, which expects 0");
  CHECK(check_calls({call(some, some), call(some, other)}) ==
        "all_to_all: rank 5 sends 2 rows to rank 4, which expects 3");
  CHECK(check_calls({call(some, some), call(other, {})}) ==
        "all_to_all: rank 5 gave receive_rows {}; expected 2 counts of at least 0");
  CHECK(check_calls({call(short_list, some), call(other, some)}) ==
        "all_to_all: rank 4 gave send_rows {5}; expected 2 counts of at least 0");
  CHECK(check_calls({call(negative, some), call(other, some)}) ==
        "all_to_all: rank 4 gave send_rows {6, -1}; expected 2 counts of at least 0");
  CHECK(check_calls({call({2, 2}, some), call(other, some)}) ==
        "all_to_all: rank 4 gave [5, 3] with send_rows {2, 2}, whose sum is another");
}
