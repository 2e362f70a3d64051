#include "distributed/who.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <map>

#include "tests/support/message.h"

using namespace agon;
using agon::test::check_contains;
using agon::test::user_error;

namespace {

using Variables = std::map<std::string, std::string>;

Who who(const Variables& variables) {
  return who_am_i([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

Variables with(Variables variables, const Variables& more) {
  for (const auto& [name, value] : more) variables[name] = value;
  return variables;
}

Variables without(Variables variables, const std::string& name) {
  variables.erase(name);
  return variables;
}

void check_single(const Variables& variables) {
  const Who w = who(variables);
  CHECK(w.launcher.empty());
  CHECK(w.rank == 0);
  CHECK(w.size == 1);
  CHECK(w.local_rank == 0);
  CHECK(w.local_size == 1);
}

const Variables kTorchrun = {
    {"RANK", "5"},          {"WORLD_SIZE", "8"},      {"LOCAL_RANK", "1"}, {"LOCAL_WORLD_SIZE", "4"},
    {"MASTER_ADDR", "red"}, {"MASTER_PORT", "29500"}, {"AGON_TOKEN", "x"}};
const Variables kMpirun = {{"OMPI_COMM_WORLD_RANK", "3"},
                           {"OMPI_COMM_WORLD_SIZE", "4"},
                           {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                           {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
const Variables kSrun = {{"SLURM_PROCID", "6"},  {"SLURM_NTASKS", "7"}, {"SLURM_LOCALID", "0"},
                         {"SLURM_STEP_ID", "0"}, {"SLURM_NODEID", "2"}, {"SLURM_STEP_TASKS_PER_NODE", "2,4,1"}};

}  // namespace

TEST_CASE("who: without variables a single rank") { check_single({}); }

TEST_CASE("who: torchrun's names") {
  const Who w = who(kTorchrun);
  CHECK(w.launcher == "torchrun");
  CHECK(w.rank == 5);
  CHECK(w.size == 8);
  CHECK(w.local_rank == 1);
  CHECK(w.local_size == 4);
  CHECK(w.master == "red");
  CHECK(w.port == 29500);
  CHECK(w.token == "x");
  CHECK(who(with(kTorchrun, kMpirun)).launcher == "torchrun");
  CHECK(who({{"RANK", "0"}, {"WORLD_SIZE", "1"}}).launcher == "torchrun");  // one rank needs no local one
}

TEST_CASE("who: a stray RANK or WORLD_SIZE means nothing") {
  check_single({{"RANK", "3"}});
  check_single({{"RANK", "colonel"}});
  check_single({{"WORLD_SIZE", "2"}});
  check_single({{"MASTER_ADDR", "red"}, {"MASTER_PORT", "29500"}});
  CHECK(who(with(kMpirun, {{"RANK", "3"}})).launcher == "mpirun");
}

TEST_CASE("who: half-given variables are refused by name") {
  for (const auto& [name, value] : kTorchrun) {
    if (name.find("MASTER") == 0 || name == "AGON_TOKEN") continue;
    check_contains(user_error([&] { who(without(kTorchrun, name)); }), {(name + " is not set").c_str(), "expected"});
  }
  for (const auto& [name, value] : kMpirun)
    check_contains(user_error([&] { who(without(kMpirun, name)); }), {(name + " is not set").c_str(), "expected"});
  check_contains(user_error([] { who({{"PMI_RANK", "1"}}); }), {"PMI_SIZE is not set", "PMI_RANK=1"});
  check_contains(user_error([] { who({{"PMI_SIZE", "2"}}); }), {"PMI_RANK is not set", "PMI_SIZE=2"});
  CHECK(who(without(without(kTorchrun, "MASTER_ADDR"), "MASTER_PORT")).port == 0);
}

TEST_CASE("who: numbers that cannot be are refused with what was found and expected") {
  check_contains(user_error([] {
                   who(with(kTorchrun, {{"RANK", "8"}}));
                 }),
                 {"RANK='8'", "from 0 to 7", "WORLD_SIZE=8"});
  for (const char* nonsense : {"", "-1", "two", "1.5", "1 ", "99999999999999999999", "0x1"})
    check_contains(user_error([&] {
                     who(with(kTorchrun, {{"RANK", nonsense}}));
                   }),
                   {"RANK='", nonsense, "from 0 to 7"});
  check_contains(user_error([] { who(with(kTorchrun, {{"WORLD_SIZE", "0"}})); }), {"WORLD_SIZE='0'", "at least 1"});
  check_contains(user_error([] {
                   who(with(kTorchrun, {{"LOCAL_RANK", "4"}}));
                 }),
                 {"LOCAL_RANK='4'", "LOCAL_WORLD_SIZE=4"});
  check_contains(user_error([] {
                   who(with(kTorchrun, {{"LOCAL_WORLD_SIZE", "9"}}));
                 }),
                 {"LOCAL_WORLD_SIZE='9'", "from 1 to 8", "WORLD_SIZE"});
  for (const char* port : {"0", "65536", "http"})
    check_contains(user_error([&] {
                     who(with(kTorchrun, {{"MASTER_PORT", port}}));
                   }),
                   {"MASTER_PORT='", port, "65535"});
  check_contains(user_error([] { who(with(kMpirun, {{"OMPI_COMM_WORLD_RANK", "4"}})); }), {"OMPI_COMM_WORLD_RANK='4'"});
}

TEST_CASE("who: mpirun's names") {
  const Who w = who(with(kMpirun, {{"MASTER_ADDR", "::1"}, {"MASTER_PORT", "1"}}));
  CHECK(w.launcher == "mpirun");
  CHECK(w.rank == 3);
  CHECK(w.size == 4);
  CHECK(w.local_rank == 1);
  CHECK(w.local_size == 2);
  CHECK(w.master == "::1");
  CHECK(w.port == 1);
}

TEST_CASE("who: ranks of mpirun that would each take themselves for the only one are refused") {
  check_contains(user_error([] {
                   who(with(kMpirun, {{"RANK", "0"}, {"WORLD_SIZE", "1"}}));
                 }),
                 {"WORLD_SIZE=1", "OMPI_COMM_WORLD_SIZE=4", "unset"});
}

TEST_CASE("who: a step of srun") {
  const Who w = who(kSrun);
  CHECK(w.launcher == "srun");
  CHECK(w.rank == 6);
  CHECK(w.size == 7);
  CHECK(w.local_rank == 0);
  CHECK(w.local_size == 1);
  CHECK(who(with(kSrun, {{"SLURM_NODEID", "1"}})).local_size == 4);
  CHECK(who(with(kSrun, {{"SLURM_STEP_TASKS_PER_NODE", "3(x2),1"}, {"SLURM_NODEID", "1"}})).local_size == 3);
  CHECK(who(with(kSrun, {{"SLURM_STEP_TASKS_PER_NODE", "junk"}, {"SLURM_LOCALID", "2"}})).local_size == 3);
  // SLURM_NTASKS may be that of the allocation around the step.
  const Who inner = who(with(kSrun, {{"SLURM_NTASKS", "64"}, {"SLURM_STEP_NUM_TASKS", "7"}}));
  CHECK(inner.size == 7);
  check_contains(user_error([] { who(without(kSrun, "SLURM_NTASKS")); }),
                 {"SLURM_NTASKS is not set", "SLURM_PROCID=6"});
  check_contains(user_error([] { who(with(kSrun, {{"SLURM_PROCID", "7"}})); }), {"SLURM_PROCID='7'", "SLURM_NTASKS=7"});
}

TEST_CASE("who: what is started by hand in a shell or script of Slurm is a single rank") {
  check_single(without(kSrun, "SLURM_STEP_ID"));                 // a batch script, a shell of salloc
  check_single(with(kSrun, {{"SLURM_STEP_ID", "4294967290"}}));  // salloc with an interactive step
  check_single(with(kSrun, {{"SLURM_STEP_ID", "4294967291"}}));  // a batch script's own step
  check_single(with(kSrun, {{"SLURM_PTY_PORT", "40001"}}));      // srun --pty bash
  check_single({{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "4"}});
}

TEST_CASE("who: pmi's names") {
  const Who w =
      who({{"PMI_RANK", "2"}, {"PMI_SIZE", "3"}, {"MPI_LOCALRANKID", "0"}, {"MPI_LOCALNRANKS", "1"}, {"RANK", "x"}});
  CHECK(w.launcher == "pmi");
  CHECK(w.rank == 2);
  CHECK(w.size == 3);
  CHECK(w.local_rank == 0);
  CHECK(w.local_size == 1);
  CHECK(who({{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}}).size == 1);
}

TEST_CASE("who: this process's environment is looked up") {
  // Nothing launches the tests over several ranks.
  CHECK(who_am_i().size == 1);
}
