#include "apps/job.h"

#include <doctest/doctest.h>

#include "distributed/together.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// The exit codes of three ranks that are threads.
std::vector<int> codes_of(const std::function<int(Communicator&)>& body) {
  std::vector<int> codes(3, -1);
  try {
    run_on_threads(3, [&](Communicator& all) { codes[size_t(all.rank())] = run_as_rank(all.split(0, 0), body); });
  } catch (const Error&) {  // of ranks that heard that another has failed
  }
  return codes;
}

}  // namespace

TEST_CASE("job: one rank returns what the body returns and throws what it throws") {
  ParallelOptions options;
  options.backend = "self";
  CHECK(run_as_rank(options, [](Communicator& all) { return 40 + all.size(); }) == 41);
  CHECK_THROWS_AS(run_as_rank(options, [](Communicator&) -> int { throw UserError("no"); }), UserError);
  options.backend = "pigeons";
  CHECK_THROWS_WITH_AS(run_as_rank(options, [](Communicator&) { return 0; }), doctest::Contains("pigeons"), UserError);
}

TEST_CASE("job: of several ranks each returns its code") {
  CHECK(codes_of([](Communicator& all) { return all.rank(); }) == std::vector<int>{0, 1, 2});
}

TEST_CASE("job: what fails on all alike has the same code on all, and nobody is told to give up") {
  CHECK(codes_of([](Communicator& all) -> int {
          together(all, [&] { require(all.rank() != 1, "none here"); });
          return 0;
        }) == std::vector<int>{2, 2, 2});
}

TEST_CASE("job: one that fails alone tells the others, who fail too") {
  CHECK(codes_of([](Communicator& all) {
          check(all.rank() != 1, "broken");
          all.barrier();
          return 0;
        }) == std::vector<int>{1, 1, 1});
}
