#include "distributed/nccl_stream.h"

#include <doctest/doctest.h>

#include <array>
#include <thread>

#include "core/copy.h"
#include "tests/distributed/nccl_ranks.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("nccl stream: refuses what a rank can see alone, as self does, and then everything") {
  FakeNccl::fresh();
  const int64_t two[] = {2}, three[] = {3};
  const auto refusal = [&](const std::function<void(Communicator&)>& f) {
    const auto comm = fake_rank(*make_self_communicator(), {});
    const std::string message = message_of([&] { f(*comm); });
    CHECK(message_of([&] { comm->barrier(); }).find(message.substr(message.find("failed: "))) != std::string::npos);
    return message;
  };
  const Tensor x({3, 1}, DType::f32), bytes({3}, DType::u8);
  CHECK(refusal([&](Communicator& c) { c.all_to_all(x, two, two); }).find("[3, 1] with send_rows {2}") !=
        std::string::npos);
  CHECK(refusal([&](Communicator& c) {
          c.all_to_all(x, three, two);
        }).find("sends 3 rows to rank 0, which expects 2") != std::string::npos);
  CHECK(refusal([&](Communicator& c) { c.broadcast(x, 1); }).find("named root 1 of 1") != std::string::npos);
  CHECK(refusal([&](Communicator& c) { c.all_reduce(Tensor()); }).find("empty tensor") != std::string::npos);
  CHECK(refusal([&](Communicator& c) { c.all_reduce(bytes); }).find("gave u8") != std::string::npos);
  CHECK(FakeNccl::instance().aborted == 5);
}

TEST_CASE("nccl stream: ranks that call differently learn of it where they meet on the host") {
  const auto failure = [](const std::function<void(Communicator&)>& body) {
    FakeNccl::fresh();
    return failure_of(2, [&](Communicator& control) { body(*fake_rank(control, {}, std::chrono::seconds(5))); });
  };
  // The fake does not end calls that do not fit; NCCL would, or would not, and nobody waits for it on the host.
  CHECK(failure([&](Communicator& c) {
          if (c.rank() == 0) c.all_reduce(Tensor({0}, DType::f32));
          c.barrier();
        }).find("different numbers of calls on their GPUs (rank 0: 1, rank 1: 0)") != std::string::npos);
  CHECK(failure([&](Communicator& c) {
          c.all_reduce(Tensor({0, 3 + c.rank()}, DType::f32));
          c.barrier();
        }).find("call 1 of the group on its GPUs: the ranks disagree") != std::string::npos);
}

TEST_CASE("nccl stream: a call that does not end is named with rank, host, step, bytes and the calls before it") {
  FakeNccl::fresh().hangs_at = "all_reduce";
  const std::string message = failure_of(2, [](Communicator& control) {
    const auto comm = fake_rank(control, {}, std::chrono::milliseconds(200));
    comm->at_step(12);
    const Tensor t({4}, DType::f32);
    fill(t, 1);
    comm->broadcast(t, 0);
    comm->all_reduce(t);
  });
  for (const char* part : {"all_reduce on rank ", "(", ") in step 12 failed: ", "within 200 ms",
                           "call 1 of all ranks, broadcast of f32 [4], 16 bytes, step 12: ended"})
    CHECK_MESSAGE(message.find(part) != std::string::npos, message);
  CHECK(FakeNccl::instance().aborted == 2);
}

TEST_CASE("nccl stream: a call that the GPU does not end is found while nobody waits for it" *
          doctest::skip(devices_of_fake().size() < 2)) {
  FakeNccl::fresh().when_called = [](const std::string& call) { hold_events(call == "all_reduce"); };
  const auto comm = fake_rank(*make_self_communicator(), devices_of_fake().back(), std::chrono::milliseconds(100));
  comm->at_step(3);
  const Tensor t({4}, DType::f32, devices_of_fake().back());
  comm->broadcast(t, 0);
  comm->all_reduce(t);
  hold_events(false);
  for (int i = 0; i < 1000 && FakeNccl::instance().aborted == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const std::string message = message_of([&] { comm->barrier(); });
  for (const char* part :
       {"barrier on rank 0 (",
        "failed: call 2 of all ranks, all_reduce of f32 [4], 16 bytes, step 3, has not ended 100 ms "
        "after it began on the GPU: a rank did not make the same call, hangs or cannot be reached",
        "call 1 of all ranks, broadcast of f32 [4], 16 bytes, step 3: ended", "step 3: under way for "})
    CHECK_MESSAGE(message.find(part) != std::string::npos, message);
}

TEST_CASE("nccl stream: an error NCCL reports later fails the next call of any kind") {
  FakeNccl::fresh().fails_at = "all_reduce";
  FakeNccl::instance().said = "socket closed by peer";
  const auto self = make_self_communicator();
  const auto comm = fake_rank(*self, {});
  const Tensor t({4}, DType::f32);
  const std::string first = message_of([&] { comm->all_reduce(t); }), then = message_of([&] { comm->barrier(); });
  CHECK(first.find("remote process exited (code 6); it says: socket closed by peer; another rank has died") !=
        std::string::npos);
  CHECK(then.find("barrier on rank 0 (") == 0);
  CHECK(then.find("socket closed by peer") != std::string::npos);
  CHECK(FakeNccl::instance().aborted == 1);
}

TEST_CASE("nccl stream: a rank that ends by an exception waits for nobody, and the others learn of it") {
  FakeNccl::fresh();
  std::array<std::string, 3> messages;
  failure_of(3, [&](Communicator& control) {
    messages[size_t(control.rank())] = message_of([&] {
      const auto comm = fake_rank(control, {});
      if (comm->rank() == 1) throw Error("out of luck");
      comm->all_reduce(Tensor({4}, DType::f32));
    });
  });
  CHECK(messages[1] == "out of luck");
  for (size_t r : {0, 2})
    CHECK(messages[r].find("NCCL: remote process exited (code 6); another rank has died") != std::string::npos);
}
