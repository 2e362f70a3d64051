#include "distributed/who.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>

#include "core/error.h"

namespace agon {

namespace {

/// Steps of Slurm that are no program's: interactive, batch script, external, pending (slurm.h).
constexpr long kFirstReservedStep = 0xfffffffa;

/// Reads numbers, and knows what the variables' family is called.
class Reader {
 public:
  Reader(const Lookup& lookup, std::string rank) : lookup_(lookup), rank_(std::move(rank)) {}

  /// At least `least` and less than `end`; `bound` says where `end` comes from.
  int number(const std::string& name, long least, long end, const std::string& bound = "") const {
    const std::optional<std::string> found = lookup_(name);
    const std::string expected =
        end == kNoEnd ? text("a number of at least ", least) : text("a number from ", least, " to ", end - 1, bound);
    require(found.has_value(), name, " is not set, but ", rank_, '=', lookup_(rank_).value_or(""), " is; expected ",
            expected);
    const std::string digits = found.value_or("");
    long value = 0;
    const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    require(error == std::errc() && rest == digits.data() + digits.size() && value >= least && value < end, name, "='",
            digits, "'; expected ", expected);
    return int(value);
  }
  int size(const std::string& name) const { return number(name, 1, kNoEnd); }
  int below(const std::string& name, int size, const std::string& size_name) const {
    return number(name, 0, size, text(", below ", size_name, '=', size));
  }

  static constexpr long kNoEnd = std::numeric_limits<int>::max();

 private:
  const Lookup& lookup_;
  std::string rank_;
};

struct Names {
  const char *launcher, *rank, *size, *local_rank, *local_size;
};

Who read(const Lookup& lookup, const Names& names) {
  const Reader reader(lookup, lookup(names.rank) ? names.rank : names.size);
  Who who;
  who.launcher = names.launcher;
  who.size = reader.size(names.size);
  who.rank = reader.below(names.rank, who.size, names.size);
  const bool local = lookup(names.local_rank) || lookup(names.local_size);
  if (who.size == 1 && !local) return who;
  who.local_size = reader.number(names.local_size, 1, long(who.size) + 1, text(", at most ", names.size));
  who.local_rank = reader.below(names.local_rank, who.local_size, names.local_size);
  return who;
}

bool any(const Lookup& lookup, std::initializer_list<const char*> names) {
  return std::ranges::any_of(names, [&](const char* name) { return lookup(name).has_value(); });
}

bool launched_by_torchrun(const Lookup& lookup) {
  const bool rank = any(lookup, {"RANK"}), size = any(lookup, {"WORLD_SIZE"});
  if (rank && size) return true;
  return (rank || size) && any(lookup, {"LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"});
}

bool launched_by_srun(const Lookup& lookup) {
  const std::optional<std::string> step = lookup("SLURM_STEP_ID");
  if (!step || lookup("SLURM_PTY_PORT") || !lookup("SLURM_PROCID")) return false;
  long number = 0;
  const auto [rest, error] = std::from_chars(step->data(), step->data() + step->size(), number);
  return error == std::errc() && rest == step->data() + step->size() && number >= 0 && number < kFirstReservedStep;
}

/// The tasks on node number `node`, from Slurm's "4(x2),3"; 0 when it says nothing of it.
int tasks_on_node(const std::string& list, int node) {
  for (size_t at = 0; at < list.size();) {
    char* rest = nullptr;
    const long tasks = std::strtol(list.c_str() + at, &rest, 10);
    long nodes = 1;
    if (rest[0] == '(' && rest[1] == 'x') {
      nodes = std::strtol(rest + 2, &rest, 10);
      if (*rest == ')') ++rest;
    }
    if (node < nodes) return int(std::clamp<long>(tasks, 0, Reader::kNoEnd));
    node -= int(nodes);
    if (*rest != ',') break;
    at = size_t(rest - list.c_str()) + 1;
  }
  return 0;
}

Who read_srun(const Lookup& lookup) {
  const Reader reader(lookup, "SLURM_PROCID");
  Who who;
  who.launcher = "srun";
  const char* size = lookup("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  who.size = reader.size(size);
  who.rank = reader.below("SLURM_PROCID", who.size, size);
  who.local_rank = reader.below("SLURM_LOCALID", who.size, size);
  const int node = lookup("SLURM_NODEID") ? reader.number("SLURM_NODEID", 0, Reader::kNoEnd) : 0;
  who.local_size = std::max(who.local_rank + 1, tasks_on_node(lookup("SLURM_STEP_TASKS_PER_NODE").value_or(""), node));
  return who;
}

constexpr Names kTorchrun = {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
constexpr Names kMpirun = {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                           "OMPI_COMM_WORLD_LOCAL_SIZE"};
constexpr Names kPmi = {"pmi", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};

Who read_first(const Lookup& lookup) {
  const bool mpirun = any(lookup, {kMpirun.rank, kMpirun.size});
  if (launched_by_torchrun(lookup)) {
    Who who = read(lookup, kTorchrun);
    if (mpirun && who.size == 1)
      if (const int size = read(lookup, kMpirun).size; size > 1)
        throw UserError(
            text("WORLD_SIZE=1, but OMPI_COMM_WORLD_SIZE=", size,
                 "; expected WORLD_SIZE and RANK unset under mpirun, where every rank would be the only one"));
    return who;
  }
  if (mpirun) return read(lookup, kMpirun);
  if (launched_by_srun(lookup)) return read_srun(lookup);
  if (any(lookup, {kPmi.rank, kPmi.size})) return read(lookup, kPmi);
  return {};
}

}  // namespace

Who who_am_i(const Lookup& lookup) {
  Who who = read_first(lookup);
  if (who.launcher.empty()) return who;
  who.master = lookup("MASTER_ADDR").value_or("");
  if (lookup("MASTER_PORT")) who.port = Reader(lookup, "MASTER_PORT").number("MASTER_PORT", 1, 65536);
  who.token = lookup("AGON_TOKEN").value_or("");
  return who;
}

Who who_am_i() {
  return who_am_i([](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value ? std::optional<std::string>(value) : std::nullopt;
  });
}

}  // namespace agon
