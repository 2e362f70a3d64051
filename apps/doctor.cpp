#include <dlfcn.h>

#include <cstdio>
#include <string>

#include "apps/account.h"
#include "apps/log.h"
#include "apps/machine.h"
#include "apps/verbs.h"
#include "core/gpu.h"
#include "core/parallel.h"
#include "distributed/mpi.h"
#include "distributed/nccl_open.h"
#include "ops/cpu/gemm.h"
#include "ops/cpu/peak.h"

namespace agon {

namespace {

/// Whether a shared library can be loaded here, and if not, what the loader says.
std::string library(const char* name) {
  if (void* handle = dlopen(name, RTLD_LAZY | RTLD_LOCAL)) {
    dlclose(handle);
    return "found";
  }
  const char* why = dlerror();
  return std::string("missing: ") + (why ? why : "unknown reason");
}

}  // namespace

int doctor() {
  std::printf("processor     %s\n", processor_name().c_str());
  std::printf("vectors       matrix products use the %s kernels\n", cpu::gemm_instruction_set());
  std::printf("threads       %d\n", threads());
  std::printf("peak          %.1f GFLOP/s f32, measured now\n", cpu::probe_peak(0.3) / 1e9);
  std::printf("memory        %s available\n", short_bytes(double(available_memory())).c_str());
  std::printf("CUDA          %s; driver libcuda.so.1 %s\n",
              kHasCuda ? "built in" : "not in this build (configure with AGON_CUDA=ON and nvcc 13)",
              library("libcuda.so.1").c_str());
  const Gpus gpus = find_gpus();
  if (gpus.found.empty()) std::printf("GPU           none: %s\n", gpus.why_none.c_str());
  for (size_t i = 0; i < gpus.found.size(); ++i) {
    const Gpu& g = gpus.found[i];
    std::printf("cuda:%-9zu%s, compute capability %d.%d%s, %d multiprocessors, %s, L2 %s\n", i, g.name.c_str(), g.major,
                g.minor, g.major < kOldestMajor ? " (too old: 8.0 or newer is needed)" : "", g.processors,
                short_bytes(double(g.memory)).c_str(), short_bytes(double(g.l2_bytes)).c_str());
  }
  std::printf("NCCL          %s%s\n", nccl_here().c_str(),
              kHasCuda ? "" : "; of no use to this build, which has no CUDA");
  std::printf("MPI           %s\n", mpi_here().c_str());
  std::printf("communicators self, threads, mpi\n");
  return 0;
}

}  // namespace agon
