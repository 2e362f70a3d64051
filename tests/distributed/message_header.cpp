#include "distributed/message_header.h"

#include <doctest/doctest.h>

#include <vector>

using namespace agon;

namespace {

const std::vector<int> kRanks{4, 9};

MessageHeader header(const Tensor& t, int64_t number = 1, int64_t step = 0) {
  return header_of({.operation = Collective::all_gather, .tensor = &t}, 7, number, step);
}

}  // namespace

TEST_CASE("message_header: carries what ranks must give alike, for tensors of any rank") {
  for (const Shape& shape : {Shape{}, Shape{3}, Shape{3, 4}, Shape{3, 4, 5}, Shape{3, 4, 5, 6}}) {
    const Tensor t(shape, DType::bf16), other(shape, DType::f32);
    const auto reduce = [](const Tensor& x) { return Call{.operation = Collective::all_reduce, .tensor = &x}; };
    const std::vector<MessageHeader> same(2, header_of(reduce(t), 1, 1, 0));
    CHECK(difference(same, kRanks) == "");
    const std::vector<MessageHeader> two{header_of(reduce(t), 1, 1, 0), header_of(reduce(other), 1, 1, 0)};
    CHECK(difference(two, kRanks) ==
          text("the ranks disagree; rank 4: all_reduce of bf16 ", shape, "; rank 9: all_reduce of f32 ", shape));
  }
}

TEST_CASE("message_header: names the steps where they differ too") {
  const Tensor narrow({2, 3}, DType::f32), wide({2, 5}, DType::f32);
  CHECK(difference(std::vector{header(narrow, 1, 6), header(narrow, 1, 7)}, kRanks) == "");
  CHECK(
      difference(std::vector{header(narrow, 1, 6), header(wide, 1, 7)}, kRanks) ==
      "the ranks disagree; rank 4: all_gather of rows of f32 [3]; rank 9: all_gather of rows of f32 [5]; their steps: "
      "6 7");
}

TEST_CASE("message_header: of another call") {
  const Tensor t({2, 3}, DType::f32);
  CHECK(difference(std::vector{header(t, 1), header(t, 257)}, kRanks) ==
        "rank 4 is in call 1 of group 7, rank 9 in call 257 of group 7");
}

TEST_CASE("message_header: rows sent and expected are compared with each other rank's") {
  const Tensor t({3, 2}, DType::f32);
  const std::vector<int64_t> send{1, 2}, receive{1, 5};
  const Call own{.operation = Collective::all_to_all, .tensor = &t, .send_rows = send, .receive_rows = receive};
  std::vector<MessageHeader> headers(2, header_of(own, 1, 1, 0));
  headers[0].send_rows = headers[0].receive_rows = 1;
  headers[1].send_rows = 5;
  headers[1].receive_rows = 2;
  CHECK(difference_of_rows(headers, own, 0, kRanks) == "");
  headers[1].receive_rows = 3;
  CHECK(difference_of_rows(headers, own, 0, kRanks) == "all_to_all: rank 4 sends 2 rows to rank 9, which expects 3");
  headers[1].receive_rows = 2;
  headers[1].send_rows = 4;
  CHECK(difference_of_rows(headers, own, 0, kRanks) == "all_to_all: rank 9 sends 4 rows to rank 4, which expects 5");
}
