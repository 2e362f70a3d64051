#include "distributed/messages.h"

#include <doctest/doctest.h>

#include <atomic>

#include "core/copy.h"
#include "core/random.h"
#include "tests/support/gradient.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

// What all kinds of ranks have in common is in collectives.cpp and failures.cpp.

namespace {

Tensor brought(int rank, int call, Shape shape) {
  return random(shape, 100 * uint64_t(call) + uint64_t(rank) + 1, 1, DType::f32);
}

}  // namespace

TEST_CASE("messages: the bits are those of threads") {
  for (int n = 2; n <= 4; ++n) {
    Tensor by_threads, by_messages;
    const auto body = [](Communicator& comm, Tensor& out) {
      const Tensor t = brought(comm.rank(), 0, {1001});
      comm.all_reduce(t);
      if (comm.rank() == 0) out = t;
    };
    run_on_threads(n, [&](Communicator& comm) { body(comm, by_threads); });
    run_on_links(n, [&](Communicator& comm) { body(comm, by_messages); });
    CHECK(identical(by_threads, by_messages));
  }
}

TEST_CASE("messages: more calls under way at once than have tags of their own, finished in any order") {
  constexpr int kCalls = 140;
  for (int delay : {0, 6})
    run_on_links(
        3,
        [](Communicator& comm) {
          std::vector<Tensor> tensors;
          std::vector<std::unique_ptr<StartedCall>> calls;
          for (int i = 0; i < kCalls; ++i) {
            tensors.push_back(brought(comm.rank(), i, {3 * (1 + i % 200)}));
            calls.push_back(i % 3 ? comm.start_all_reduce(tensors.back()) : comm.start_reduce_scatter(tensors.back()));
            if (i % 7 == comm.rank()) comm.progress();
          }
          for (int k = 0; k < kCalls; ++k) {
            const int i = (k * 3 + comm.rank()) % kCalls;  // 3 and 140 have no common factor
            const Tensor got = calls[size_t(i)]->finish();
            const Tensor all = brought(0, i, tensors[size_t(i)].shape());
            for (int r = 1; r < 3; ++r)
              for (size_t e = 0; e < all.data<float>().size(); ++e)
                all.data<float>()[e] += brought(r, i, all.shape()).data<float>()[e];
            const int64_t begin = i % 3 ? 0 : comm.rank() * got.size();
            CHECK(std::equal(got.data<float>().begin(), got.data<float>().end(), all.data<float>().begin() + begin));
          }
        },
        {}, delay);
}

TEST_CASE("messages: a started call goes on beneath calls of the same group and of others") {
  for (int delay : {0, 6})
    run_on_links(
        4,
        [](Communicator& comm) {
          const auto part = comm.split(comm.rank() % 2, 0);
          const Tensor large = tensor_of<int32_t>(std::vector<int32_t>(5000, comm.rank()));
          const auto started = comm.start_all_reduce(large);
          const Tensor small = tensor_of<int32_t>({comm.rank()});
          part->all_reduce(small);
          comm.barrier();
          const auto again = comm.split(0, 0);
          again->all_reduce(small);
          CHECK(small.data<int32_t>()[0] == 2 * 2 + 2 * 4);
          started->finish();
          for (int32_t v : large.data<int32_t>()) REQUIRE(v == 6);
        },
        {}, delay);
}

TEST_CASE("messages: groups of groups have numbers of their own") {
  run_on_links(
      5,
      [](Communicator& comm) {
        const auto low = comm.split(comm.rank() < 3 ? 0 : 1, 0);
        const auto lower = comm.rank() < 2 ? low->split(0, 0) : low->split(1, 0);
        const auto mixed = comm.split(comm.rank() % 2, 0);  // made by ranks that have seen different numbers of groups
        for (Communicator* group : {&comm, low.get(), lower.get(), mixed.get()}) {
          const Tensor one = tensor_of<int32_t>({1});
          group->all_reduce(one);
          CHECK(one.data<int32_t>()[0] == group->size());
        }
      },
      {}, 4);
}

TEST_CASE("messages: the time waited for a rank is booked to it") {
  std::atomic<bool> failed = false;
  const auto body = [&](Communicator& comm) {
    const auto part = comm.split(comm.rank() == 2, 0);  // 0 and 1 wait without 2
    if (comm.rank() == 0) CHECK(message_of([&] { part->barrier(); }) != "");
    if (comm.rank() == 0) CHECK(part->waited_for()[1] >= 0.1);
    if (comm.rank() == 0) failed = true;
    while (!failed) std::this_thread::yield();
  };
  message_of([&] { run_on_links(3, body, {.deadline = std::chrono::milliseconds(100)}); });
  CHECK(failed);
}

TEST_CASE("messages: one rank alone gets what it gave") {
  run_on_links(1, [](Communicator& comm) {
    CHECK(comm.all_gather(tensor_of<int32_t>({3})).data<int32_t>()[0] == 3);
    CHECK(comm.host(0) == "host-0");
  });
}
