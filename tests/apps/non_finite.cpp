#include "apps/non_finite.h"

#include <doctest/doctest.h>

#include <cmath>

#include "core/copy.h"
#include "tests/apps/tiny_run.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("non_finite: parameters by name, outputs by where they are made") {
  Tiny tiny;
  const Sequences at = sequences_of(tiny.data.sequences(0, 2), {});
  CHECK(non_finite_parameter(tiny.model) == "");
  CHECK(non_finite_output(tiny.model, at, {}).where == "");
  CHECK(non_finite_output(tiny.model, at, {}).after == 5);  // two of each block, the last norm
  Parameter& up = tiny.model.blocks()[0].dense->up;
  fill(up.value, 1e25);
  CHECK(non_finite_parameter(tiny.model) == "");
  const NonFinite found = non_finite_output(tiny.model, at, {});
  CHECK(found.where == "output of blocks.0.feed_forward");
  CHECK(found.after == 1);
  up.value.data<float>()[3] = std::nanf("");
  CHECK(non_finite_parameter(tiny.model) == "parameter blocks.0.feed_forward.gate_up");
}

TEST_CASE("non_finite: of what ranks find, the earliest, then the first rank's") {
  run_on_threads(4, [](Communicator& comm) {
    CHECK(earliest({}, comm) == "");
    const NonFinite found[] = {{7, ""}, {4, "output of b"}, {2, "output of a"}, {2, "output of a"}};
    CHECK(earliest(found[comm.rank()], comm) == "output of a on rank 2");
  });
  CHECK(earliest({3, "output of a"}, *make_self_communicator()) == "output of a");
}
