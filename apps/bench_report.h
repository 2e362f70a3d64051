#pragma once
#include <string>
#include <vector>

#include "apps/bench.h"

namespace agon {

struct BenchRow {
  BenchCase measured;  // without its inputs
  BenchResult result;
  std::string clocks;  // of the GPU, just after the case: "SM MHz, memory MHz, watts, degrees"
};

/// The table that `agon bench` ends with, one line a row.
std::string bench_table(const std::vector<BenchRow>& rows);

/// The file of --json (docs/bench.md). `start` is the probe before all cases.
std::string bench_json(const std::vector<BenchRow>& rows, const BenchOptions& options, const BenchPeak& start,
                       const std::string& command);

/// What nvidia-smi says of the GPU's clocks now; "" where it says nothing.
std::string gpu_clocks(Device device);

}  // namespace agon
