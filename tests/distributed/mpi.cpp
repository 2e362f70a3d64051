#include "distributed/mpi.h"

#include <doctest/doctest.h>

#include <filesystem>

#include "tests/support/message.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using agon::test::check_contains;
using namespace agon::testing;

// What needs several processes is tests/mpi.sh.

TEST_CASE("mpi: what is missing is said, with the packages to install") {
  const TemporaryFolder folder;
  check_contains(
      user_error([&] { open_mpi({folder.path()}); }),
      {"MPI is not in this build (agon_mpi.so is in none of ", "apt-get install libopenmpi-dev openmpi-bin"});
  put(folder / "agon_mpi.so", "no library");
  check_contains(user_error([&] { open_mpi({folder.path()}); }),
                 {"MPI cannot be loaded (", "agon_mpi.so", "apt-get install libopenmpi-dev openmpi-bin"});
}

TEST_CASE("mpi: the module, where this build has it, is found from the tests") {
  const bool built = std::filesystem::exists(AGON_BINARY_DIR "/agon_mpi.so");
  CHECK((mpi_here().find("none: MPI is not in this build") == 0) == !built);
  if (!built) return;
  CHECK(std::string(open_mpi().version()) != "");
  CHECK(contains(mpi_here(), "agon_mpi.so"));
}
