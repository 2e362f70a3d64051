#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/config.h"
#include "core/device.h"
#include "core/dtype.h"
#include "distributed/communicator.h"

// What `agon bench` measures, and what comes out. docs/bench.md has the definitions and the JSON.

namespace agon {

struct GemmLibrary;

struct BenchOptions {
  Device device = {};
  DType dtype = DType::f32;                        // of activations and weights
  double seconds = 0.5;                            // of measuring per case
  bool all = false;                                // every strategy with every routing
  bool tiny = false;                               // shapes that take no time: whether the cases run at all
  std::string config = {};                         // of `train`
  std::vector<std::string> overrides = {};         // of `train`
  std::vector<const GemmLibrary*> libraries = {};  // of `ops --compare`
  Communicator* ranks = nullptr;                   // the ranks that take a step of `train` together; null: one
};

/// A case with its inputs in place.
struct BenchRun {
  std::function<void(int64_t turn)> once;      // one iteration, on input set `turn` modulo their number
  std::map<std::string, double> figures = {};  // what else is to be reported: "load_ratio", ...
  // Seconds in each part of the program (core/profile.h) so far, of cases that tell them apart.
  std::shared_ptr<const std::map<std::string, double>> parts = {};
};

struct BenchCase {
  std::string group = {}, name = {}, shape = {};
  DType dtype = DType::f32;
  double flops = 0;        // of one iteration
  double bytes = 0;        // that one iteration cannot avoid to move: inputs read once, results written once
  int64_t set_bytes = 1;   // of one set of inputs: as many sets are made as exceed the caches
  double tokens = 0;       // of one iteration
  bool own_arena = false;  // `once` cares for its memory
  int threads = 0;         // of the CPU; 0: as many as for all else
  // Neighbours with one name here, unless it is empty, are measured in alternating rounds.
  std::string together = {};
  std::function<BenchRun(int64_t sets)> prepare = {};
};
using BenchCases = std::vector<BenchCase>;

BenchCases ops_cases(const BenchOptions& options);
BenchCases compare_cases(const BenchOptions& options);
BenchCases layer_cases(const BenchOptions& options);
BenchCases train_cases(const BenchOptions& options);
/// What `train` takes a step of.
Config train_config(const BenchOptions& options);

/// The most a device gives, taken in the same moments as a case; of all ranks' together.
struct BenchPeak {
  double flops = 0;  // per second
  double bytes = 0;  // per second, read and written, of a large copy
};

struct BenchResult {
  double seconds = 0;                  // of one iteration: the median over the rounds
  double spread = 0;                   // slowest less fastest round, as a share of the median
  int64_t rounds = 0, iterations = 0;  // of each round
  BenchPeak peak;                      // medians over the rounds
  std::map<std::string, double> figures, parts;
  std::string error;  // why there are no figures
};

/// A figure that may be missing is 0.
double flops_per_second(const BenchCase& c, const BenchResult& r);
double bytes_per_second(const BenchCase& c, const BenchResult& r);
double share_of_peak(const BenchCase& c, const BenchResult& r);
double share_of_copy(const BenchCase& c, const BenchResult& r);

}  // namespace agon
