#include "apps/mpirun.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>

#include "tests/support/temporary_folder.h"

using namespace agon;
using agon::testing::TemporaryFolder;

namespace {

void put_program(const std::string& path, const std::string& script) {
  agon::testing::put(path, "#!/bin/sh\n" + script + "\n");
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
}

bool has(const std::vector<std::string>& command, std::vector<std::string> words) {
  return !std::ranges::search(command, words).empty();
}

}  // namespace

TEST_CASE("mpirun: the first of Open MPI in PATH is found") {
  const TemporaryFolder none, other, open;
  put_program(other / "mpirun", "echo HYDRA build details");
  agon::testing::put(none / "mpirun", "not executable");
  CHECK(find_mpirun("") == "");
  CHECK(find_mpirun("/nonexistent::" + none.path() + ":" + other.path()) == "");
  put_program(open / "mpirun", "[ \"$1\" = --version ] && echo 'mpirun (Open MPI) 4.1.4'");
  CHECK(find_mpirun(none.path() + ":" + other.path() + ":" + open.path()) == open / "mpirun");
  put_program(other / "mpirun.openmpi", "echo 'mpirun (Open MPI) 4.1.4'");
  CHECK(find_mpirun(other.path() + ":" + open.path()) == other / "mpirun.openmpi");
}

TEST_CASE("mpirun: its session and the ranks' shared memory are in the job's folder") {
  const std::vector<std::string> command = mpirun_command("/bin/mpirun", 3, "/dev/shm/x", 2);
  CHECK(command[0] == "/bin/mpirun");
  CHECK(has(command, {"-n", "3"}));
  CHECK(has(command, {"--mca", "orte_tmpdir_base", "/dev/shm/x"}));
  CHECK(has(command, {"--mca", "btl_vader_backing_directory", "/dev/shm/x"}));
  CHECK(has(command, {"--mca", "odls_base_sigkill_timeout", "2"}));
}

TEST_CASE("mpirun: variables of other launchers are told from those for the user") {
  for (const char* name : {"RANK", "WORLD_SIZE", "MASTER_ADDR", "SLURM_JOB_ID", "PMIX_RANK", "OMPI_COMM_WORLD_RANK",
                           "OMPI_MCA_orte_hnp_uri", "PBS_JOBID", "AGON_TOKEN"})
    CHECK(is_of_other_launcher(name));
  for (const char* name : {"PATH", "HOME", "RANKING", "OMPI_MCA_btl_vader_single_copy_mechanism",
                           "CUDA_VISIBLE_DEVICES", "OMPI_ALLOW_RUN_AS_ROOT"})
    CHECK(!is_of_other_launcher(name));
}

TEST_CASE("mpirun: of what it says, accounts of ended ranks are left out") {
  const std::string rule(74, '-'),
      account =
          rule + "\nPrimary job  terminated normally, but 1 process returned\na non-zero exit code.\n" + rule + "\n";
  CHECK(worth_showing("") == "");
  CHECK(worth_showing(account) == "");
  CHECK(worth_showing(rule + "\nmpirun noticed that process rank 0 exited on signal 9 (Killed).\n" + rule + "\n" +
                      account) == "");
  CHECK(worth_showing(account + rule + "\nNo components were able to be opened\n\n  Framework: pml\n" + rule + "\n") ==
        "No components were able to be opened\n\n  Framework: pml\n");
  CHECK(worth_showing("/usr/bin/mpirun: cannot execute\n") == "/usr/bin/mpirun: cannot execute\n\n");
}
