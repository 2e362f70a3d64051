#include "distributed/reduce.h"

#include <doctest/doctest.h>

#include <deque>

#include "core/copy.h"
#include "distributed/placement.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// Parameters of these sizes, experts where the size is negative, and their buckets on expert groups of two ranks.
struct Fixture {
  std::deque<Parameter> parameters;
  std::vector<Parameter*> all;
  ExpertRanks ranks;
  std::unique_ptr<GradientBuckets> buckets;

  Fixture(Communicator& comm, const std::vector<int64_t>& sizes, int64_t bytes, bool scatter,
          Precision precision = Precision::fp32())
      : ranks(make_expert_ranks(comm, comm.size() > 1 ? 2 : 1)) {
    for (const int64_t n : sizes) {
      Parameter& p = parameters.emplace_back(Shape{std::abs(n)}, precision);
      p.name = text("p", parameters.size());
      if (n < 0) p.group = Group::expert;
      all.push_back(&p);
    }
    buckets = std::make_unique<GradientBuckets>(all, comm, *ranks.replicas, bytes, scatter);
  }
  /// Element i of parameter n on rank r: exact in f32, and in sums over a few ranks.
  static float gradient(size_t n, size_t i, int r) { return float(n * 1000 + i + size_t(r) * 100000); }
  void make_gradients(int rank) {
    for (size_t n = 0; n < all.size(); ++n) {
      const auto g = all[n]->grad.data<float>();
      for (size_t i = 0; i < g.size(); ++i) g[i] = gradient(n, i, rank);
      all[n]->has_grad = true;
    }
  }
};

const std::vector<int64_t> kSizes{3, -200, 130, 7, -64, 1000};

}  // namespace

TEST_CASE("reduce: shared gradients are summed over all ranks, those of experts over their replicas, step after step") {
  for (const int64_t bytes : {1, 600, 1 << 20})
    run_on_threads(4, [&](Communicator& comm) {
      Fixture f(comm, kSizes, bytes, false);
      for (int step = 0; step < 3; ++step) {
        f.make_gradients(comm.rank());
        for (size_t n = f.all.size(); n-- > 0;) f.buckets->ready(*f.all[n]);
        f.buckets->finish();
        for (size_t n = 0; n < f.all.size(); ++n) {
          const bool expert = f.all[n]->group == Group::expert;
          const auto g = f.all[n]->grad.data<float>();
          for (size_t i = 0; i < g.size(); ++i) {
            float sum = 0;
            for (int r = 0; r < 4; ++r)
              if (!expert || r % 2 == comm.rank() % 2) sum += Fixture::gradient(n, i, r);
            CHECK(g[i] == sum);
          }
        }
      }
    });
}

TEST_CASE("reduce: shares are every shared element once and every expert's once, scattered or not") {
  for (const bool scatter : {false, true}) {
    std::vector<std::vector<int>> seen;
    std::mutex mutex;
    for (const int64_t n : kSizes) seen.emplace_back(size_t(n < 0 ? -2 * n : n));  // experts: two groups' places
    run_on_threads(4, [&](Communicator& comm) {
      Fixture f(comm, kSizes, 600, scatter);
      f.make_gradients(comm.rank());
      f.buckets->finish();
      const std::lock_guard lock(mutex);
      for (const auto& share : f.buckets->shares()) {
        const size_t n = size_t(std::ranges::find(f.all, share.whole) - f.all.begin());
        const bool expert = share.whole->group == Group::expert;
        const size_t of_place = expert ? size_t(comm.rank() % 2) * size_t(-kSizes[n]) : 0;
        for (size_t i = 0; i < size_t(share.part.grad.size()); ++i) {
          ++seen[n][of_place + size_t(share.first) + i];
          float sum = 0;
          for (int r = 0; r < 4; ++r)
            if (!expert || r % 2 == comm.rank() % 2) sum += Fixture::gradient(n, size_t(share.first) + i, r);
          CHECK(share.part.grad.data<float>()[i] == sum);
        }
      }
    });
    for (const auto& of_parameter : seen)
      for (const int times : of_parameter) CHECK(times == 1);
  }
}

TEST_CASE("reduce: masters changed in shares are gathered, and values follow") {
  run_on_threads(4, [&](Communicator& comm) {
    Fixture f(comm, kSizes, 600, true, Precision::bf16());
    f.make_gradients(comm.rank());
    f.buckets->finish();
    for (const auto& share : f.buckets->shares()) copy(share.part.master, share.part.grad);
    f.buckets->gather_masters();
    for (size_t n = 0; n < f.all.size(); ++n)
      for (size_t i = 0; i < size_t(f.all[n]->master.size()); ++i) {
        float sum = 0;
        for (int r = 0; r < 4; ++r)
          if (f.all[n]->group != Group::expert || r % 2 == comm.rank() % 2) sum += Fixture::gradient(n, i, r);
        CHECK(f.all[n]->master.data<float>()[i] == sum);
        CHECK(float(f.all[n]->value.data<bf16>()[i]) == float(bf16(sum)));
      }
  });
}

TEST_CASE("reduce: one rank moves nothing") {
  const auto self = make_self_communicator();
  Parameter p({3}, Precision::fp32());
  const void* const before = p.grad.address();
  Parameter* one[] = {&p};
  GradientBuckets buckets(one, *self, *self, 100, true);
  CHECK(p.grad.address() == before);
  REQUIRE(buckets.parts().size() == 1);
  CHECK(buckets.parts()[0]->grad.address() == before);
}

TEST_CASE("reduce: a gradient that a tape is still to write is waited for, and one that it never wrote is an error") {
  run_on_threads(2, [](Communicator& comm) {
    Fixture f(comm, {5, 3}, 1 << 20, false);
    f.make_gradients(comm.rank());
    f.all[1]->has_grad = false;
    f.buckets->ready(*f.all[1]);
    f.buckets->ready(*f.all[0]);
    CHECK(comm.traffic()[Collective::all_reduce].calls == 0);
    f.all[1]->has_grad = true;
    f.buckets->ready(*f.all[1]);
    CHECK(comm.traffic()[Collective::all_reduce].calls == 1);
    f.buckets->finish();
    f.all[0]->has_grad = false;
    CHECK(message_of([&] { f.buckets->finish(); }).find("the parameter p1 has no gradient") != std::string::npos);
  });
}
