#pragma once
#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "apps/config.h"

namespace agon {

/// What one optimizer step gives the log.
struct StepReport {
  int64_t step = 0;  // counts from 1: steps done
  double loss = 0;   // cross-entropy, nats per token
  double rate = 0, gradient_norm = 0;
  double seconds = 0;
  int64_t tokens = 0;
  double share_of_peak = 0;
  std::map<std::string, double> losses;   // "balance" -> mean over layers
  std::vector<std::vector<double>> load;  // per layer with experts: pairs per expert
  double dropped = 0;                     // share of pairs dropped, mean over layers
  std::map<std::string, double> routing;  // Statistics::figures, means over layers
  int64_t competing = 0;                  // layers whose experts compete in this step
  bool evaluated = false;
  double val_loss = 0, val_bpb = 0;
  double val_k = 0;         // realised experts per token, mean over layers with experts; 0 without any
  bool val_causal = true;   // whether no token saw later ones
  double configured_k = 0;  // what it should be
  int ranks = 1;            // what follows is of many:
  double comm_share = 0;    // seconds in collective calls over the step's, mean over ranks
  double comm_bytes = 0;    // sent in the step, by all ranks
  int slowest = -1;         // the rank that the others waited for; -1: none in particular
  double waited = 0;        // seconds they waited for it
};

/// The largest load of an expert over the mean, the worst layer's; 0 without experts.
double load_ratio(const std::vector<std::vector<double>>& load);

/// " k 1.98" where a realised number of experts per token is not the configured one; else "".
std::string off_budget(double realised, double configured);

/// One line of log.jsonl.
std::string json_line(const StepReport& report);

/// Shows a run: one line that is rewritten on a terminal, plain lines every so many steps otherwise.
class Progress {
 public:
  /// `out` is where lines go (stdout for the program).
  Progress(const LogOptions& options, int64_t steps, std::FILE* out);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const StepReport& report);
  /// Clears the live line, so that something else can be printed; the next step shows it again.
  void pause();

 private:
  std::string line(const StepReport& report) const;

  LogOptions options_;
  int64_t steps_;
  std::FILE* out_;
  bool live_;
  bool shown_ = false;
  double smooth_loss_ = 0, smooth_speed_ = 0;
  double val_loss_ = -1;
  std::string val_note_;  // what is to be said of it
  int64_t seen_ = 0;
  std::chrono::steady_clock::time_point last_{};
};

/// 1234567 -> "1.23M".
std::string short_number(double n);
/// Seconds as "1h02m", "3m20s", "12s".
std::string short_time(double seconds);
/// Bytes as "12.3 MiB".
std::string short_bytes(double bytes);

}  // namespace agon
