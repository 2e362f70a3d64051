#include "distributed/nccl.h"

#include <doctest/doctest.h>

#include <mutex>

#include "core/copy.h"
#include "core/random.h"
#include "tests/distributed/nccl_ranks.h"
#include "tests/support/cuda.h"
#include "tests/support/every_collective.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr DType kSummed[] = {DType::f32, DType::bf16, DType::f64, DType::i32};

/// What rank r brings.
Tensor brought(int rank, Shape shape, DType dtype) {
  if (dtype == DType::i32) return converted(brought(rank, shape, DType::f64), DType::i32);
  const Tensor t(shape, dtype);
  fill_normal(t, {5, uint64_t(rank)}, 100);
  return t;
}

/// The sum in rank order, as the fake adds: bf16 in f32, rounded once.
Tensor summed(int ranks, Shape shape, DType dtype) {
  Tensor sum;
  run_on_threads(ranks, [&](Communicator& comm) {
    const Tensor t = brought(comm.rank(), shape, dtype);
    comm.all_reduce(t);
    if (comm.rank() == 0) sum = clone(t);
  });
  return sum;
}

std::vector<float> values(const Tensor& t) {
  const Tensor here = on_host(t);
  const auto v = here.data<const float>();
  return {v.begin(), v.end()};
}

/// Sends rank r's row of value 10 r + i to rank i, as often as `rows(r, i)` says, and checks what comes.
void check_all_to_all(Communicator& comm, Device device, const std::function<int64_t(int, int)>& rows) {
  std::vector<int64_t> send, receive;
  std::vector<float> given, expected;
  for (int r = 0; r < comm.size(); ++r) {
    send.push_back(rows(comm.rank(), r));
    receive.push_back(rows(r, comm.rank()));
    given.insert(given.end(), size_t(send.back() * 2), float(10 * comm.rank() + r));
    expected.insert(expected.end(), size_t(receive.back() * 2), float(10 * r + comm.rank()));
  }
  const Tensor x = on_device(tensor_of(given).reshape({int64_t(given.size() / 2), 2}), device);
  const Tensor y = comm.all_to_all(x, send, receive);
  CHECK(y.shape() == Shape{int64_t(expected.size() / 2), 2});
  CHECK(y.device() == device);
  CHECK(values(y) == expected);
}

}  // namespace

TEST_CASE("nccl: sums of every dtype, waited for and started, on every rank") {
  for (int n : {1, 2, 3})
    on_fake_ranks(n, [](Communicator& comm, Device device) {
      for (const DType dtype : kSummed)
        for (const Shape shape : {Shape{}, Shape{7}, Shape{0, 4}, Shape{6, 50}}) {
          const Tensor t = on_device(brought(comm.rank(), shape, dtype), device);
          const Tensor expected = summed(comm.size(), shape, dtype);
          const Tensor u = clone(t);
          comm.all_reduce(t);
          CHECK(identical(t, expected));
          const auto started = comm.start_all_reduce(u);
          CHECK(started->finish().address() == u.address());
          CHECK(identical(u, expected));
        }
      for (const DType dtype : kSummed) {
        const Shape shape = {2 * comm.size(), 3};
        const Tensor t = on_device(brought(comm.rank(), shape, dtype), device);
        const Tensor whole = summed(comm.size(), shape, dtype);
        const Tensor block = comm.reduce_scatter(t);
        REQUIRE(block.shape() == Shape{2, 3});
        CHECK(std::memcmp(on_host(block).address(),
                          static_cast<const std::byte*>(whole.address()) + comm.rank() * block.bytes(),
                          size_t(block.bytes())) == 0);
        CHECK(identical(comm.start_reduce_scatter(t)->finish(), block));
        CHECK(identical(t, brought(comm.rank(), shape, dtype)));  // left as it was
      }
    });
}

TEST_CASE("nccl: all_to_all with uneven rows, zeros and own rows, which NCCL does not see") {
  for (int n : {1, 2, 4})
    on_fake_ranks(n, [](Communicator& comm, Device device) {
      check_all_to_all(comm, device, [](int from, int to) { return (from + 2 * to) % 3; });
      check_all_to_all(comm, device, [](int, int) { return 0; });
      check_all_to_all(comm, device, [](int from, int to) { return from == to ? 5 : 0; });
      check_all_to_all(comm, device, [](int from, int) { return from == 0 ? 3 : 0; });
    });
  on_fake_ranks(2, [](Communicator& comm, Device device) {
    check_all_to_all(comm, device, [](int from, int to) { return from == to ? 5 : 0; });
  });
  CHECK(FakeNccl::instance().count("send_receive") == 0);
  on_fake_ranks(2, [](Communicator& comm, Device device) {
    check_all_to_all(comm, device, [](int from, int to) { return from == 0 && to == 1 ? 3 : 7 * (from == to); });
  });
  CHECK(FakeNccl::instance().count("send_receive 0>1:24") == 1);
  CHECK(FakeNccl::instance().count("send_receive 1>0:0") == 1);
  CHECK(FakeNccl::instance().count("send_receive") == 2);
}

TEST_CASE("nccl: own rows go through NCCL where a test wants it") {
  for (const Device device : devices_of_fake()) {
    FakeNccl::fresh();
    const auto self = make_self_communicator();
    const auto comm = fake_rank(*self, device, std::chrono::seconds(60), true);
    check_all_to_all(*comm, device, [](int, int) { return 3; });
    CHECK(FakeNccl::instance().count("send_receive 0>0:24") == 1);
  }
}

TEST_CASE("nccl: all_gather of equal and of different numbers of rows, broadcast from any rank") {
  for (int n : {1, 2, 3})
    on_fake_ranks(n, [](Communicator& comm, Device device) {
      const auto gathered = [&](const std::function<int64_t(int)>& rows) {
        std::vector<float> all;
        for (int r = 0; r < comm.size(); ++r) all.insert(all.end(), size_t(rows(r) * 2), float(r));
        const Tensor t({rows(comm.rank()), 2}, DType::f32, device);
        fill(t, comm.rank());
        CHECK(values(comm.all_gather(t)) == all);
      };
      gathered([](int) { return 3; });
      gathered([](int r) { return 2 * r; });
      gathered([](int) { return 0; });
      for (int root = 0; root < comm.size(); ++root) {
        const Tensor t({5}, DType::f32, device);
        fill(t, comm.rank() + 1);
        comm.broadcast(t, root);
        CHECK(values(t) == std::vector<float>(5, float(root + 1)));
      }
    });
  CHECK(FakeNccl::instance().count("all_gather") == 3);  // the uneven ones are broadcasts, the empty one is nothing
}

TEST_CASE("nccl: what is on the host goes through the control communicator") {
  for (const Device device : devices_of_fake()) {
    if (device.kind == Device::cpu) continue;
    on_fake_ranks(2, [](Communicator& comm, Device) {
      const Tensor t = tensor_of<float>({1, 2});
      comm.all_reduce(t);
      CHECK(values(t) == std::vector<float>{2, 4});
      comm.barrier();
      CHECK(comm.all_gather(t).shape() == Shape{4});
    });
  }
  on_fake_ranks(2, [](Communicator& comm, Device device) {
    const auto moved = comm.traffic();
    for (const auto& [operation, t] : moved) CHECK(t.calls == 0);  // what only serves agreement is not counted
    comm.barrier();
    CHECK(comm.traffic().at(Collective::barrier).calls == 1);
    const Tensor t({6}, DType::f32, device);
    fill(t, 1);
    comm.all_gather(t);
    comm.barrier();
    const auto gathered = comm.traffic().at(Collective::all_gather);
    CHECK(gathered.calls == 1);
    CHECK(gathered.sent == 24);
    CHECK(gathered.received == 24);
  });
}

TEST_CASE("nccl: counts the bytes that threads count") {
  for (int n : {1, 2, 3}) {
    std::map<int, std::map<Collective, Traffic>> expected, found;
    const auto work = [](Communicator& comm, Device device) {
      comm.all_reduce(on_device(brought(0, {7}, DType::f32), device));
      comm.all_reduce(on_device(brought(0, {8}, DType::bf16), device));
      comm.reduce_scatter(on_device(brought(0, {12, 3}, DType::f32), device));
      comm.all_gather(on_device(brought(0, {1 + comm.rank(), 2}, DType::f32), device));
      comm.broadcast(on_device(brought(0, {5}, DType::f32), device), 0);
      check_all_to_all(comm, device, [](int from, int to) { return from + 2 * to; });
    };
    std::mutex mutex;
    run_on_threads(n, [&](Communicator& comm) {
      work(comm, {});
      const std::lock_guard lock(mutex);
      expected[comm.rank()] = comm.traffic();
    });
    on_fake_ranks(n, [&](Communicator& comm, Device device) {
      work(comm, device);
      const std::lock_guard lock(mutex);
      found[comm.rank()] = comm.traffic();
    });
    for (int r = 0; r < n; ++r)
      for (const auto& [operation, t] : expected[r]) {
        CAPTURE(operation);
        CHECK(found[r].at(operation).calls == t.calls);
        CHECK(found[r].at(operation).sent == t.sent);
        CHECK(found[r].at(operation).received == t.received);
      }
  }
}

TEST_CASE("nccl: parts work beside the whole") {
  on_fake_ranks(4, [](Communicator& comm, Device device) {
    const auto part = comm.split(comm.rank() % 2, -comm.rank());
    CHECK(part->size() == 2);
    CHECK(part->rank() == (comm.rank() < 2 ? 1 : 0));
    const Tensor t({1}, DType::f32, device), u({1}, DType::f32, device);
    fill(t, comm.rank());
    fill(u, comm.rank());
    const auto started = comm.start_all_reduce(u);
    part->all_reduce(t);
    started->finish();
    CHECK(values(t) == std::vector<float>{float(comm.rank() % 2 ? 4 : 2)});
    CHECK(values(u) == std::vector<float>{6});
    CHECK(part->traffic().at(Collective::all_reduce).calls == 1);
  });
  CHECK(FakeNccl::instance().aborted == 0);
  CHECK(FakeNccl::instance().destroyed == 8);
}

TEST_CASE("nccl: a start that fails says why, on the ranks that wait too") {
  FakeNccl::fresh().fails_at = "make_id";
  std::mutex mutex;
  std::string messages[2];
  failure_of(2, [&](Communicator& control) {
    const std::string message = message_of([&] { fake_rank(control, {}); });
    const std::lock_guard lock(mutex);
    messages[control.rank()] = message;
  });
  CHECK(messages[0].find("NCCL gives no id for the ranks to meet by: NCCL: remote process exited") == 0);
  CHECK_MESSAGE(messages[1].find("): NCCL gives no id") != std::string::npos, messages[1]);
  FakeNccl::fresh().hangs_at = "open";
  const auto self = make_self_communicator();
  CHECK(message_of([&] {
          fake_rank(*self, {}, std::chrono::milliseconds(100));
        }).find("did not get ready within 100 ms") != std::string::npos);
}

TEST_CASE("nccl: the id may come another way than by the control communicator") {
  FakeNccl::fresh();
  bool asked = false;
  NcclOptions options;
  options.device = {};
  options.control = make_self_communicator();
  options.library = &FakeNccl::library();
  options.share_id = [&](std::span<std::byte> id) { asked = id.size() == NcclLibrary::kIdBytes; };
  CHECK(make_nccl_communicator(std::move(options))->size() == 1);
  CHECK(asked);
}

TEST_CASE("nccl: every collective, on the whole and on parts of it") {
  for (int n : {1, 2, 3, 4})
    on_fake_ranks(n, [](Communicator& comm, Device device) {
      EveryCollective(comm, device, true).run();
      EveryCollective(comm, device, true).run_in_parts();
    });
}

TEST_CASE("cuda: nccl: every collective on one rank, own rows in the device's memory and through NCCL" *
          doctest::skip(!has_gpu_for_nccl())) {
  const Device gpu{Device::cuda, 0};
  for (const bool send_to_self : {false, true}) {
    NcclOptions options;
    options.device = gpu;
    options.control = make_self_communicator();
    options.send_to_self = send_to_self;
    const auto comm = make_nccl_communicator(std::move(options));
    CHECK_NOTHROW(EveryCollective(*comm, gpu).run());
    CHECK_NOTHROW(EveryCollective(*comm, gpu).run_in_parts());
  }
}
