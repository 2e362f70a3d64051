// What every kind of ranks gives: the same values, to the bit.

#include <doctest/doctest.h>

#include <cstring>

#include "core/copy.h"
#include "core/random.h"
#include "distributed/communicator.h"
#include "tests/support/gradient.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr DType kSummed[] = {DType::f32, DType::bf16, DType::f64, DType::i32};

/// The values rank r brings: every rank can make those of the others, and so what a call has to return.
Tensor brought(int rank, Shape shape, DType dtype) {
  if (dtype == DType::i32) return converted(brought(rank, shape, DType::f64), DType::i32);
  const Tensor t(shape, dtype);
  fill_normal(t, {3, uint64_t(rank)}, 100);
  return t;
}

/// The sum in rank order: bf16 in f32, rounded once.
Tensor summed(int ranks, Shape shape, DType dtype) {
  const DType wide = dtype == DType::bf16 ? DType::f32 : dtype;
  const Tensor sum = converted(brought(0, shape, dtype), wide);
  for (int r = 1; r < ranks; ++r) {
    const Tensor x = converted(brought(r, shape, dtype), wide);
    for (size_t i = 0; i < size_t(sum.size()); ++i) {
      if (wide == DType::f32) sum.data<float>()[i] += x.data<float>()[i];
      if (wide == DType::f64) sum.data<double>()[i] += x.data<double>()[i];
      if (wide == DType::i32) sum.data<int32_t>()[i] += x.data<int32_t>()[i];
    }
  }
  return converted(sum, dtype);
}

Tensor rows_of(const Tensor& t, int64_t begin, int64_t n) {
  const Tensor part(t.shape().with(0, n), t.dtype());
  const auto row = t.shape().with(0, 1).size() * size_of(t.dtype());
  std::memcpy(const_cast<void*>(part.address()), static_cast<const std::byte*>(t.address()) + begin * row,
              size_t(n * row));
  return part;
}

}  // namespace

TEST_CASE("collectives: all_reduce is the sum in rank order, to the bit, on every rank") {
  on_all_kinds_of_ranks([](Communicator& comm) {
    for (DType dtype : kSummed)
      for (Shape shape : {Shape{}, Shape{7}, Shape{0, 4}, Shape{3, 1000}}) {
        const Tensor t = brought(comm.rank(), shape, dtype);
        comm.all_reduce(t);
        CHECK(identical(t, summed(comm.size(), shape, dtype)));
      }
  });
}

TEST_CASE("collectives: reduce_scatter gives each rank its block of the sum") {
  on_all_kinds_of_ranks([](Communicator& comm) {
    for (DType dtype : kSummed)
      for (int64_t n : {0, 1, 3}) {
        const Shape shape{n * comm.size(), 5, 2};
        const Tensor block = comm.reduce_scatter(brought(comm.rank(), shape, dtype));
        CHECK(identical(block, rows_of(summed(comm.size(), shape, dtype), comm.rank() * n, n)));
      }
  });
}

TEST_CASE("collectives: broadcast leaves the root's values everywhere") {
  on_all_kinds_of_ranks([](Communicator& comm) {
    for (int root = 0; root < comm.size(); ++root)
      for (Shape shape : {Shape{}, Shape{0}, Shape{3, 5}}) {
        const Tensor t = brought(comm.rank(), shape, DType::bf16);
        comm.broadcast(t, root);
        CHECK(identical(t, brought(root, shape, DType::bf16)));
      }
    const Tensor bytes = tensor_of<uint8_t>({uint8_t(comm.rank()), 7});
    comm.broadcast(bytes, comm.size() - 1);
    CHECK(bytes.data<uint8_t>()[0] == comm.size() - 1);
  });
}

TEST_CASE("collectives: all_gather joins blocks of different heights, by rank") {
  on_all_kinds_of_ranks([](Communicator& comm) {
    const auto height = [](int rank) { return int64_t(rank * rank % 4); };  // 0, 1, 0, 1, 0: rank 0 has none
    const Tensor all = comm.all_gather(brought(comm.rank(), {height(comm.rank()), 3}, DType::f32));
    int64_t row = 0;
    for (int r = 0; r < comm.size(); ++r) {
      CHECK(identical(rows_of(all, row, height(r)), brought(r, {height(r), 3}, DType::f32)));
      row += height(r);
    }
    CHECK(all.shape() == Shape{row, 3});
  });
}

TEST_CASE("collectives: all_to_all delivers every block, by source") {
  on_all_kinds_of_ranks([](Communicator& comm) {
    const auto count = [](int from, int to) { return int64_t((from * 3 + to * 2) % 4); };
    const auto start = [&](int from, int to) {
      int64_t n = 0;
      for (int r = 0; r < to; ++r) n += count(from, r);
      return n;
    };
    std::vector<int64_t> send, receive;
    for (int r = 0; r < comm.size(); ++r) {
      send.push_back(count(comm.rank(), r));
      receive.push_back(count(r, comm.rank()));
    }
    for (DType dtype : {DType::f32, DType::bf16, DType::i32}) {
      const Tensor got =
          comm.all_to_all(brought(comm.rank(), {start(comm.rank(), comm.size()), 5}, dtype), send, receive);
      int64_t row = 0;
      for (int r = 0; r < comm.size(); ++r) {
        const Tensor from = brought(r, {start(r, comm.size()), 5}, dtype);
        CHECK(
            identical(rows_of(got, row, receive[size_t(r)]), rows_of(from, start(r, comm.rank()), receive[size_t(r)])));
        row += receive[size_t(r)];
      }
      CHECK(got.shape() == Shape{row, 5});
    }
    const std::vector<int64_t> none(size_t(comm.size()), 0);
    CHECK(comm.all_to_all(Tensor({0, 5}, DType::f32), none, none).shape() == Shape{0, 5});
  });
}

TEST_CASE("collectives: split makes groups by color, ordered by key, that work at the same time") {
  on_every_kind(5, [](Communicator& comm) {
    const auto part = comm.split(comm.rank() % 2, -comm.rank());
    CHECK(part->size() == (comm.rank() % 2 ? 2 : 3));
    CHECK(part->rank() == (comm.rank() % 2 ? (3 - comm.rank()) / 2 : (4 - comm.rank()) / 2));
    const Tensor me = tensor_of<int32_t>({comm.rank()});
    for (int i = 0; i < 3 + comm.rank() % 2; ++i) {  // one group calls more often than the other
      const Tensor all = part->all_gather(me);
      for (int r = 0; r < part->size(); ++r) CHECK(all.data<int32_t>()[size_t(r)] == (comm.rank() % 2 ? 3 : 4) - 2 * r);
    }
    const auto again = part->split(0, 0);
    CHECK(again->rank() == part->rank());  // equal keys: by rank
    CHECK(part->split(part->rank(), 0)->size() == 1);
    again->all_reduce(me);
    CHECK(me.data<int32_t>()[0] == (comm.rank() % 2 ? 4 : 6));
    comm.barrier();
  });
}

TEST_CASE("collectives: results come from the arena of the rank that receives them") {
  on_every_kind(3, [](Communicator& comm) {
    Arena arena;
    {
      const Arena::Scope scope(arena);
      const Tensor x({6, 64}, DType::f32);
      const int64_t twos[] = {2, 2, 2};
      const size_t before = arena.live();
      const Tensor a = comm.all_to_all(x, twos, twos), b = comm.all_gather(x), c = comm.reduce_scatter(x);
      CHECK(arena.live() - before == size_t(a.bytes() + b.bytes() + c.bytes()));
      comm.all_reduce(x);
      comm.broadcast(x, 1);
      CHECK(arena.live() - before == size_t(a.bytes() + b.bytes() + c.bytes()));
    }
    CHECK(arena.live() == 0);
  });
}

TEST_CASE("collectives: many calls in a row, ranks that allocate and drop, keep their order") {
  on_every_kind(4, [](Communicator& comm) {
    for (int i = 0; i < 200; ++i) {
      const Tensor t = tensor_of<int32_t>({i, comm.rank()});
      comm.all_reduce(t);
      CHECK(t.data<int32_t>()[0] == 4 * i);
      const Tensor all = comm.all_gather(t.reshape({1, 2}));
      CHECK(all.data<int32_t>()[7] == 6);
    }
  });
}
