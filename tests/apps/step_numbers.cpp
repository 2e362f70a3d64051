#include "apps/step_numbers.h"

#include <doctest/doctest.h>

#include <cmath>

#include "core/copy.h"

using namespace agon;

TEST_CASE("step_numbers: sums of micro-batches, means of layers, and figures that do not occur everywhere") {
  StepLog log;
  const auto note = [&](std::vector<double> values) { return log.add(tensor_of(values)); };
  const double absent = std::nan("");
  std::vector<NumbersOfMicro> micros(2);
  for (NumbersOfMicro& m : micros) {
    const bool first = &m == &micros[0];
    m.loss = note({first ? 1.5 : 2});
    m.layers.resize(3);  // the first is dense
    m.layers[1].losses.emplace_back("balance", note({first ? 1. : 2.}));
    m.layers[2].losses.emplace_back("balance", note({first ? 3. : 4.}));
    m.layers[2].losses.emplace_back("z", note({8}));
    m.layers[1].figures = {"dropped", "tokens_with_1", "margin"};
    m.layers[1].values = note({0.25, first ? 1 : absent, first ? 6 : absent});
    m.layers[1].load = note({1, 3});
    m.layers[2].figures = {"dropped", "agreement"};
    m.layers[2].values = note({0.75, 0.5});
    m.layers[2].load = note({2, first ? 0. : 2.});
  }
  log.read(*make_self_communicator());
  StepReport r;
  add_up(log, micros, r);
  CHECK(r.loss == 3.5);
  CHECK(r.losses.at("balance") == (2 + 3) / 2.);
  CHECK(r.losses.at("z") == 8);
  CHECK(r.load == std::vector<std::vector<double>>{{2, 6}, {4, 2}});
  CHECK(r.dropped == 0.5);
  CHECK(r.routing.at("margin") == 6);            // the mean of those that have one
  CHECK(r.routing.at("tokens_with_1") == 0.25);  // none is a share of 0
  CHECK(r.competing == 1);
  CHECK(r.routing.at("load_max") == doctest::Approx((6 / 4. + 4 / 3.) / 2));
}

TEST_CASE("step_numbers: other ranks' micro-batches count like more of one's own") {
  std::vector<StepReport> reports(3);
  const auto noted = [](StepLog& log, int micro) {
    NumbersOfMicro m;
    m.loss = log.add(tensor_of<double>({1 + micro * 0.5}));
    m.layers.resize(1);
    m.layers[0].losses.emplace_back("balance", log.add(tensor_of<double>({2. + micro})));
    m.layers[0].figures = {"dropped", "margin"};
    m.layers[0].values = log.add(tensor_of<double>({0.25 * micro, micro == 2 ? std::nan("") : micro + 1}));
    m.layers[0].load = log.add(tensor_of<double>({1. + micro, 3}));
    return m;
  };
  run_on_threads(2, [&](Communicator& all) {
    StepLog log;
    const std::vector<NumbersOfMicro> micros{noted(log, all.rank()), noted(log, 2 + all.rank())};
    log.read(all);
    add_up(log, micros, reports[size_t(all.rank())]);
  });
  StepLog log;
  std::vector<NumbersOfMicro> micros;
  for (int micro = 0; micro < 4; ++micro) micros.push_back(noted(log, micro));
  log.read(*make_self_communicator());
  add_up(log, micros, reports[2]);
  for (const StepReport& r : reports) {
    CHECK(r.loss == reports[2].loss);
    CHECK(r.losses == reports[2].losses);
    CHECK(r.load == std::vector<std::vector<double>>{{10, 12}});
    CHECK(r.routing == reports[2].routing);
  }
}
