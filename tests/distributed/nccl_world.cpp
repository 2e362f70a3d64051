#include "distributed/nccl_world.h"

#include <doctest/doctest.h>

#include "core/copy.h"
#include "tests/distributed/nccl_ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr Device kHost = {};

void* opened(NcclWorld& world) {
  char id[NcclLibrary::kIdBytes] = {};
  FakeNccl::library().make_id(id);
  return world.open("a start", nullptr, [&](void** made) { return FakeNccl::library().open(made, 1, id, 0); });
}

NcclWorld::Flight flight(const NcclWorld& world, int64_t number) {
  const Lane lane(world.device());
  NcclWorld::Flight f{.group = "all ranks", .number = number, .what = "all_reduce of f32 [4]", .bytes = 16};
  lane.set(f.ready);
  lane.set(f.done);
  return f;
}

}  // namespace

TEST_CASE("nccl world: an error that comes while nobody calls is found, and fails what comes later") {
  FakeNccl& fake = FakeNccl::fresh();
  NcclWorld world(FakeNccl::library(), kHost, std::chrono::seconds(60));
  void* const communicator = opened(world);
  CHECK(world.failure() == "");
  fake.fails_at = "all_reduce";
  float x = 1;
  FakeNccl::library().all_reduce(communicator, &x, &x, 1, NcclLibrary::f32, nullptr);  // behind the world's back
  for (int i = 0; i < 1000 && world.failure().empty(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  CHECK(world.failure().find("NCCL: remote process exited") == 0);
  CHECK(fake.aborted == 1);
  CHECK(message_of([&] { world.put(communicator, "a call", [] { return 0; }); }).find("a call failed: NCCL: remote") ==
        0);
  world.close(communicator, false);  // long gone
  CHECK(fake.aborted == 1);
}

TEST_CASE("nccl world: the record names the last calls and where they stand") {
  FakeNccl::fresh();
  NcclWorld world(FakeNccl::library(), kHost, std::chrono::seconds(60));
  void* const communicator = opened(world);
  Traffic moved;
  for (int i = 1; i <= 100; ++i) {
    world.at_step(i / 10);
    NcclWorld::Flight f = flight(world, i);
    f.seconds = &moved;
    world.watch(std::move(f));
    if (i == 50) world.settle("a pause");
  }
  CHECK(world.measured({}).empty());
  world.fail("enough");
  const std::string failure = world.failure();
  CHECK(failure.find("enough\nthe last calls on this rank's GPU:") == 0);
  CHECK(failure.find("call 100 of all ranks, all_reduce of f32 [4], 16 bytes, step 10: ended, took ") !=
        std::string::npos);
  CHECK(failure.find("call 93 of all ranks") != std::string::npos);
  CHECK(failure.find("call 50 of") == std::string::npos);
  world.fail("more");
  CHECK(world.failure() == failure);
  world.close(communicator, true);
}

TEST_CASE("nccl world: marks are used again when nobody has them") {
  FakeNccl::fresh();
  NcclWorld world(FakeNccl::library(), kHost, std::chrono::seconds(60));
  CHECK(!world.spare_mark());
  NcclWorld::Flight f = flight(world, 1);
  const Lane::Mark kept = f.done;
  const void* const ready = f.ready.get();
  world.watch(std::move(f));
  world.settle("the end");
  CHECK(world.spare_mark().get() == ready);
  CHECK(!world.spare_mark());
}

TEST_CASE("nccl world: an end that is not over in time is an abort") {
  FakeNccl& fake = FakeNccl::fresh();
  NcclWorld world(FakeNccl::library(), kHost, std::chrono::milliseconds(50));
  void* const first = opened(world);
  world.close(first, false);
  CHECK(fake.destroyed == 1);
  void* const second = opened(world);
  world.close(second, true);
  CHECK(fake.aborted == 1);
}
