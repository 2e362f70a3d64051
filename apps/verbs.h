#pragma once
#include <string>
#include <vector>

#include "apps/sampler.h"
#include "distributed/communicator.h"

namespace agon {

// One function per verb of the program, each in a file of its name. The value is the exit code; the user's mistakes and
// failures are exceptions (core/error.h).

struct TrainArguments {
  std::string config;
  std::vector<std::string> overrides;
  bool resume = false, dry_run = false, overfit_one_batch = false;
  std::string init_from;
};
int train(const TrainArguments& arguments);
/// On the ranks of `all`: each calls it with arguments of the same meaning. What fails on one fails on all.
int train(const TrainArguments& arguments, Communicator& all);

struct EvalArguments {
  std::string checkpoint, data;
  std::vector<std::string> overrides;
  bool check_leak = false, noncausal = false;
  std::string calibrate = {};  // a text to make thresholds with, for this run
};
int eval(const EvalArguments& arguments);

struct CalibrateArguments {
  std::string checkpoint, text;
  std::vector<std::string> overrides;
};
int calibrate_thresholds(const CalibrateArguments& arguments);

struct GenerateArguments {
  std::string checkpoint, prompt;
  std::vector<std::string> overrides;
  SamplingOptions sampling;
};
int generate_text(const GenerateArguments& arguments);

struct ProbeArguments {
  std::string layer, in, out;
  bool each_loss = false, expert_outputs = false;
};
int probe(const ProbeArguments& arguments);

struct BenchArguments {
  std::vector<std::string> groups;  // ops, layer, train; empty: all
  std::string device = "cpu", precision;
  std::string json, filter, command;
  std::string config = "configs/bench-10m.toml";
  std::vector<std::string> overrides;
  double seconds = 0;  // per case; 0: as the device needs
  int threads = 0;
  bool all = false, tiny = false, list = false, compare = false;
};
int bench(const BenchArguments& arguments);

struct PlanArguments {
  std::string config;
  std::vector<std::string> overrides;
  int ranks = 0;
  double memory_gib = 0;  // that a rank may take; 0: not given
  std::string json;
};
/// Memory and bytes of every layout of a job of so many ranks, found on one.
int plan(const PlanArguments& arguments);

int info(const std::string& what, const std::vector<std::string>& overrides);
int doctor();

}  // namespace agon
