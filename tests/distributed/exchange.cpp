#include "distributed/exchange.h"

#include <doctest/doctest.h>

#include <numeric>

#include "tests/support/gradient.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr int64_t kWidth = 3, kRowsPerRank = 6;

/// Rows rank `from` sends to rank `to`: some of them none, and rank 1 none at all, in a world of `size`.
std::vector<int64_t> sends(int from, int size) {
  std::vector<int64_t> n(size_t(size), 0);
  if (from == 1) return n;
  for (int64_t row = 0; row < kRowsPerRank; ++row) ++n[size_t((row * row + from) % size)];
  return n;
}

std::vector<int64_t> receives(int to, int size) {
  std::vector<int64_t> n;
  for (int from = 0; from < size; ++from) n.push_back(sends(from, size)[size_t(to)]);
  return n;
}

int64_t total(const std::vector<int64_t>& n) { return std::accumulate(n.begin(), n.end(), int64_t(0)); }

/// y = x², rowwise work that a rank does for the rows of others.
Tensor square(const Tensor& x) {
  const Tensor y(x.shape(), x.dtype());
  for (size_t i = 0; i < y.data<double>().size(); ++i) y.data<double>()[i] = x.data<double>()[i] * x.data<double>()[i];
  return record("square", {&x}, y, [x](Gradients& g, const Tensor& dy) {
    const Tensor dx(x.shape(), x.dtype());
    for (size_t i = 0; i < dx.data<double>().size(); ++i)
      dx.data<double>()[i] = 2 * x.data<double>()[i] * dy.data<double>()[i];
    g.add(x, dx);
  });
}

Parameter rows_of(int rank, int size) {
  Parameter p({total(sends(rank, size)), kWidth}, Precision::f64());
  fill_normal(p.value, {1, uint64_t(rank)}, 1);
  return p;
}

}  // namespace

TEST_CASE("exchange: there and back is the identity, and so is its gradient") {
  on_all_kinds_of_ranks([](Communicator& comm) {
    const auto send = sends(comm.rank(), comm.size()), receive = receives(comm.rank(), comm.size());
    Parameter x = rows_of(comm.rank(), comm.size());
    Parameter* all[] = {&x};
    Tape tape(all);
    const Tensor arrived = exchange(x, send, receive, comm);
    CHECK(arrived.shape() == Shape{total(receive), kWidth});
    const Tensor home = exchange(arrived, receive, send, comm);
    CHECK(identical(home, x.value));
    tape.backward(probe(home, 5));
    CHECK(identical(x.grad, random(x.value.shape(), 5)));
  });
}

TEST_CASE("exchange: work done on the rows by other ranks has the gradient of the work done at home") {
  on_all_kinds_of_ranks([](Communicator& comm) {
    const auto send = sends(comm.rank(), comm.size()), receive = receives(comm.rank(), comm.size());
    const auto gradient = [&](bool travels) {
      Parameter x = rows_of(comm.rank(), comm.size());
      Parameter* all[] = {&x};
      Tape tape(all);
      const Tensor y = travels ? exchange(square(exchange(x, send, receive, comm)), receive, send, comm) : square(x);
      tape.backward(probe(y, 5));
      return x.grad;
    };
    CHECK(identical(gradient(true), gradient(false)));
  });
}

TEST_CASE("exchange: nothing keeps the rows that were sent") {
  run_on_threads(2, [](Communicator& comm) {
    Parameter x({4, 1024}, Precision::f64());
    Parameter* all[] = {&x};
    Arena arena;
    {
      const Arena::Scope scope(arena);
      Tape tape(all);
      const Tensor y = exchange(square(x), {2, 2}, {2, 2}, comm);
      CHECK(arena.live() == size_t(y.bytes()));
    }
    CHECK(arena.live() == 0);
  });
}
