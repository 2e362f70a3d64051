#pragma once
#include <functional>
#include <optional>
#include <string>

namespace agon {

/// Which rank of how many this process is, as its launcher says.
struct Who {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  ///< among the ranks of this machine
  std::string launcher;                ///< torchrun | mpirun | srun | pmi; empty: nobody launched it, a single rank
  std::string master;                  ///< the host of rank 0; empty: not given
  int port = 0;                        ///< where rank 0 may serve a store; 0: not given
  std::string token;                   ///< the store's secret; empty: not given
};

/// The value of an environment variable, where it is set.
using Lookup = std::function<std::optional<std::string>(const std::string& name)>;

/// Reads the first of these that is there:
///   torchrun  RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE. RANK or WORLD_SIZE alone, with none of the others nor
///             MASTER_ADDR or MASTER_PORT, is a name that something else uses, and means nothing.
///   mpirun    OMPI_COMM_WORLD_{RANK,SIZE,LOCAL_RANK,LOCAL_SIZE}
///   srun      SLURM_PROCID, SLURM_STEP_NUM_TASKS (before SLURM_NTASKS, which may be the allocation's), SLURM_LOCALID,
///             only in a step that srun started for the program: a batch script and a shell of salloc or `srun --pty`
///             have such variables too, and what is started in them by hand is a single rank. There SLURM_STEP_ID is
///             missing or one of Slurm's reserved numbers, or SLURM_PTY_PORT is set.
///   pmi       PMI_RANK PMI_SIZE, MPI_LOCALRANKID MPI_LOCALNRANKS
/// and with any of them MASTER_ADDR, MASTER_PORT and AGON_TOKEN. UserError naming the variable, what was found and what
/// was expected, when some are missing or contradict each other; also when WORLD_SIZE=1 is set among several ranks of
/// mpirun, which would all take themselves for the only one.
Who who_am_i(const Lookup& lookup);

/// From this process's environment.
Who who_am_i();

}  // namespace agon
