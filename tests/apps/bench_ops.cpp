#include <doctest/doctest.h>

#include <set>

#include "apps/bench.h"

using namespace agon;

TEST_CASE("bench ops: products are counted as 2 per multiply-add, backward as twice the forward") {
  const BenchCases cases = ops_cases({});
  std::set<std::string> names;
  for (const BenchCase& c : cases) {
    names.insert(c.name + c.shape);
    CHECK(c.bytes > 0);
    if (c.name == "linear" && c.shape == "[1024, 1024] x 1024") CHECK(c.flops == 2.0 * 1024 * 1024 * 1024);
    if (c.name == "linear+backward" && c.shape == "[1024, 1024] x 1024") {
      CHECK(c.flops == 6.0 * 1024 * 1024 * 1024);
      CHECK(c.bytes == 4.0 * 1024 * 1024 * 8);  // x w y, then dy x w dx dw
    }
    if (c.name == "adamw") CHECK(c.bytes == 28e6 * 10);
  }
  CHECK(names.size() == cases.size());
}

TEST_CASE("bench ops: a GPU gets sizes that fill it") {
  const auto flops = [](const BenchOptions& o) {
    double sum = 0;
    for (const BenchCase& c : ops_cases(o)) sum += c.flops;
    return sum;
  };
  CHECK(flops({.device = {Device::cuda, 0}, .dtype = DType::bf16}) > 20 * flops({}));
}
