#include "apps/mpirun.h"

#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "apps/processes.h"

namespace agon {

std::string find_mpirun(const std::string& path) {
  std::istringstream folders(path);
  for (std::string folder; std::getline(folders, folder, ':');)
    // The second is what Debian calls it where mpirun is another MPI's.
    for (const char* name : {"/mpirun", "/mpirun.openmpi"}) {
      const std::string program = folder + name;
      if (folder.empty() || access(program.c_str(), X_OK) != 0) continue;
      if (output_of({program, "--version"}).find("Open MPI") != std::string::npos) return program;
    }
  return {};
}

std::vector<std::string> mpirun_command(const std::string& mpirun, int ranks, const std::string& folder, int seconds) {
  std::vector<std::string> command = {mpirun, "-n", std::to_string(ranks), "--oversubscribe", "--bind-to", "none"};
  if (geteuid() == 0) command.emplace_back("--allow-run-as-root");
  const auto set = [&](const std::string& name, const std::string& value) {
    command.insert(command.end(), {"--mca", name, value});
  };
  set("orte_tmpdir_base", folder);
  set("btl_vader_backing_directory", folder);
  set("odls_base_sigkill_timeout", std::to_string(seconds));
  // One machine: shared memory, and none of the networks that would be looked for.
  set("pml", "ob1");
  set("btl", "self,vader");
  set("oob_tcp_if_include", "lo");
  return command;
}

bool is_of_other_launcher(const std::string& variable) {
  for (const char* name : {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR",
                           "MASTER_PORT", "AGON_TOKEN"})
    if (variable == name) return true;
  for (const char* prefix : {"SLURM_", "PBS_", "LSB_", "PMI_", "PMIX_", "MPI_LOCAL", "OMPI_COMM_WORLD_",
                             "OMPI_UNIVERSE_", "OMPI_MCA_orte_", "OMPI_MCA_ess", "OMPI_MCA_pmix"})
    if (variable.rfind(prefix, 0) == 0) return true;
  return false;
}

std::string worth_showing(const std::string& said) {
  const auto is_rule = [](const std::string& line) {
    return line.size() > 20 && line.find_first_not_of('-') == std::string::npos;
  };
  const auto is_account = [](const std::string& block) {
    for (const char* phrase : {"Primary job  terminated normally", "exited with non-zero status",
                               "noticed that process", "MPI_ABORT was invoked", "exiting improperly"})
      if (block.find(phrase) != std::string::npos) return true;
    return false;
  };
  std::string shown, block;
  std::istringstream lines(said + "\n" + std::string(30, '-'));
  for (std::string line; std::getline(lines, line);) {
    if (!is_rule(line)) {
      block += line + '\n';
      continue;
    }
    if (!is_account(block) && block.find_first_not_of(" \n") != std::string::npos) shown += block;
    block.clear();
  }
  return shown;
}

}  // namespace agon
