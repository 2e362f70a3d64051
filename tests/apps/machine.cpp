#include "apps/machine.h"

#include <doctest/doctest.h>

TEST_CASE("machine: the processor has one name") {
  CHECK(!agon::processor_name().empty());
  CHECK(agon::processor_name().find('\n') == std::string::npos);
}
