#include "distributed/host.h"

#include <doctest/doctest.h>
#include <unistd.h>

TEST_CASE("host: the name the system gives") {
  char name[256] = {};
  REQUIRE(gethostname(name, sizeof name - 1) == 0);
  CHECK(agon::this_host() == name);
}
