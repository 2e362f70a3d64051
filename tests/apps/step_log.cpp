#include "apps/step_log.h"

#include <doctest/doctest.h>

#include "core/copy.h"
#include "tests/support/cuda.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

DEVICE_CASE("step_log: brings what was added, in f64, with one crossing, again and again") {
  StepLog log(device_of_case());
  const auto self = make_self_communicator();
  const bool gpu = device_of_case().kind == Device::cuda;
  for (int round = 0; round < 3; ++round) {
    log.clear();
    std::vector<Tensor> added;
    std::vector<StepLog::Place> places;
    for (uint64_t i = 0; i < 40; ++i)  // more than it first has room for
      added.push_back(there(random({int64_t(i) * 3}, 7 + i, 1, i % 2 ? DType::f32 : DType::f64)));
    const Crossings before = crossings();
    for (const Tensor& t : added) places.push_back(log.add(t));
    places.push_back(log.add({}));
    log.read(*self);
    CHECK(crossings().to_device == before.to_device);
    CHECK(crossings().to_host == before.to_host + gpu);
    CHECK(log.at(places.back()).empty());
    for (size_t i = 0; i < added.size(); ++i) {
      const Tensor wide = converted(on_host(added[i]), DType::f64);
      CHECK(std::ranges::equal(log.at(places[i]), wide.data<double>()));
    }
    CHECK(log.value(places[5]) == converted(on_host(added[5]), DType::f64).data<double>()[0]);
  }
}

TEST_CASE("step_log: the numbers of all ranks, which must be as many on each") {
  run_on_threads(3, [](Communicator& all) {
    StepLog log;
    const double r = all.rank();
    const StepLog::Place one = log.add(tensor_of<double>({r})), two = log.add(tensor_of<double>({10 + r, 20 + r}));
    log.read(all);
    CHECK(log.ranks() == 3);
    for (int rank = 0; rank < 3; ++rank) {
      CHECK(log.value(one, rank) == rank);
      CHECK(log.at(two, rank)[1] == 20 + rank);
    }
    CHECK_THROWS_AS(log.at(one, 3), Error);
    if (all.rank() == 1) log.add(tensor_of<double>({5}));
    CHECK(message_of([&] { log.read(all); }).find("have not logged the same") != std::string::npos);
  });
}
