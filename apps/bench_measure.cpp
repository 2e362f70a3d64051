#include "apps/bench_measure.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <deque>
#include <thread>

#include "core/copy.h"
#include "core/gpu.h"
#include "core/parallel.h"
#include "core/random.h"
#include "core/timer.h"
#include "ops/cpu/peak.h"
#include "ops/linear.h"

namespace agon {

namespace {

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t n = values.size();
  return n == 0 ? 0 : (values[(n - 1) / 2] + values[n / 2]) / 2;
}

/// Seconds of f(), called so often that it takes a little time, once.
template <class F>
double seconds_of(Device device, int64_t times, F&& f) {
  for (int i = 0; i < 2; ++i) f();  // an arena measures in the first, and takes its memory in the second
  Timer timer(device);
  timer.start();
  for (int64_t i = 0; i < times; ++i) f();
  return timer.stop() / double(times);
}

}  // namespace

BenchPeak peak_of_ranks(BenchPeak here, const BenchOptions& options) {
  if (!options.ranks) return here;
  const Tensor sums = tensor_of<double>({here.flops, here.bytes});
  options.ranks->all_reduce(sums);
  return {sums.data<double>()[0], sums.data<double>()[1]};
}

int64_t cache_bytes(Device device) {
  if (device.kind == Device::cuda) return find_gpus().found[size_t(device.index)].l2_bytes;
  const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return bytes > 0 ? bytes : int64_t(32) << 20;
}

PeakProbe::PeakProbe(const BenchOptions& options) : options_(options), arena_(options.device) {
  const Device device = options.device;
  int64_t copied = options.tiny ? 1 << 12 : int64_t(64) << 20;
  if (device.kind == Device::cuda) {
    const int64_t room = free_memory(device);
    if (!options.tiny) copied = std::min(int64_t(1) << 30, room / 8);
    int64_t n = options.tiny ? 32 : 8192;
    while (3 * 2 * n * n > room / 4) n /= 2;
    left_ = Tensor({n, n}, DType::bf16, device);
    right_ = Tensor({n, n}, DType::bf16, device);
    fill_normal(left_, {.seed = 1}, 1);  // zeros would be multiplied faster
    fill_normal(right_, {.seed = 2}, 1);
  }
  from_ = Tensor({copied / 4}, DType::f32, device);
  to_ = Tensor({copied / 4}, DType::f32, device);
  fill(from_, 1);
  fill(to_, 2);
}

double PeakProbe::cpu_copy() {
  const char* const from = static_cast<const char*>(from_.address());
  char* const to = static_cast<char*>(to_.address());
  const auto all = [&] {
    parallel_ranges(from_.bytes(), 1 << 20,
                    [&](int64_t begin, int64_t end) { std::memcpy(to + begin, from + begin, size_t(end - begin)); });
  };
  return 2 * double(from_.bytes()) / seconds_of({}, 1, all);
}

double PeakProbe::gpu_product() {
  const double n = double(left_.shape(0));
  return 2 * n * n * n /
         seconds_of(options_.device, options_.tiny ? 1 : 10, [&] { arena_([&] { linear(left_, right_); }); });
}

double PeakProbe::gpu_copy() {
  return 2 * double(from_.bytes()) / seconds_of(options_.device, options_.tiny ? 1 : 10, [&] { copy(to_, from_); });
}

BenchPeak PeakProbe::operator()(double seconds) {
  if (options_.device.kind == Device::cuda) return {gpu_product(), gpu_copy()};
  return {cpu::probe_peak(options_.tiny ? 1e-3 : seconds), cpu_copy()};
}

namespace {

/// The same on all ranks, so that all decide alike how often to go on.
double of_slowest(double seconds, const BenchOptions& options) {
  if (!options.ranks) return seconds;
  const Tensor all = options.ranks->all_gather(tensor_of<double>({seconds}));
  return std::ranges::max(all.data<const double>());
}

/// One case on its way to a result.
class Measurement {
 public:
  Measurement(const BenchCase& c, const BenchOptions& options)
      : case_(c), options_(options), arena_(options.device), timer_(options.device) {}

  void warm_up() {
    attempt([&] {
      const int64_t sets = 2 * cache_bytes(options_.device) / std::max<int64_t>(1, case_.set_bytes) + 1;
      run_ = case_.prepare(options_.tiny ? 2 : std::clamp<int64_t>(sets, 1, 64));
      // The first iteration finds out what memory it takes, the second takes it; clocks and caches settle meanwhile.
      timed(1);
      double one = timed(1);
      for (double spent = one; spent < 0.3 * options_.seconds; spent += one) one = timed(1);
      result_.rounds = kRounds * one > 2 * options_.seconds ? kLeast : kRounds;
      result_.iterations = std::max<int64_t>(1, std::llround(options_.seconds / double(result_.rounds) / one));
    });
  }

  bool wants_round() const { return result_.error.empty() && std::ssize(seconds_) < result_.rounds; }

  void round(PeakProbe& probe) {
    attempt([&] {
      const BenchPeak peak = peak_of_ranks(probe(), options_);
      seconds_.push_back(timed(result_.iterations) / double(result_.iterations));
      flops_.push_back(peak.flops);
      bytes_.push_back(peak.bytes);
    });
  }

  BenchResult result() && {
    if (!result_.error.empty()) return std::move(result_);
    const auto [fastest, slowest] = std::ranges::minmax(seconds_);
    result_.seconds = median(seconds_);
    result_.spread = (slowest - fastest) / result_.seconds;
    result_.peak = {median(flops_), median(bytes_)};
    result_.figures = std::move(run_.figures);
    if (run_.parts) result_.parts = *run_.parts;
    return std::move(result_);
  }

 private:
  static constexpr int64_t kRounds = 5, kLeast = 3;

  template <class F>
  void attempt(F&& f) {
    try {
      f();
    } catch (const Error& e) {
      if (options_.ranks) throw;  // the others are in the middle of it
      result_.error = e.what();
    }
  }

  double timed(int64_t iterations) {
    timer_.start();
    for (int64_t i = 0; i < iterations; ++i, ++turn_) {
      if (case_.own_arena)
        run_.once(turn_);
      else
        arena_([&] { run_.once(turn_); });
    }
    return of_slowest(timer_.stop(), options_);
  }

  const BenchCase& case_;
  const BenchOptions& options_;
  Step arena_;
  Timer timer_;
  BenchRun run_;
  int64_t turn_ = 0;
  BenchResult result_;
  std::vector<double> seconds_, flops_, bytes_;  // of the rounds
};

}  // namespace

std::vector<BenchResult> measure(std::span<const BenchCase> cases, const BenchOptions& options, PeakProbe& probe) {
  const int usual = threads();
  if (!cases.empty() && cases[0].threads > 0) set_threads(cases[0].threads);
  std::deque<Measurement> all;
  for (const BenchCase& c : cases) all.emplace_back(c, options).warm_up();
  const auto wants_round = [](const Measurement& m) { return m.wants_round(); };
  while (std::ranges::any_of(all, wants_round))
    for (Measurement& m : all)
      if (m.wants_round()) {
        // Another library's threads look for work a while before they sleep.
        if (all.size() > 1 && !options.tiny) std::this_thread::sleep_for(std::chrono::milliseconds(200));
        m.round(probe);
      }
  std::vector<BenchResult> results;
  results.reserve(all.size());
  for (Measurement& m : all) results.push_back(std::move(m).result());
  set_threads(usual);
  return results;
}

double flops_per_second(const BenchCase& c, const BenchResult& r) { return r.seconds > 0 ? c.flops / r.seconds : 0; }
double bytes_per_second(const BenchCase& c, const BenchResult& r) { return r.seconds > 0 ? c.bytes / r.seconds : 0; }
double share_of_peak(const BenchCase& c, const BenchResult& r) {
  return r.peak.flops > 0 ? flops_per_second(c, r) / r.peak.flops : 0;
}
double share_of_copy(const BenchCase& c, const BenchResult& r) {
  return r.peak.bytes > 0 ? bytes_per_second(c, r) / r.peak.bytes : 0;
}

}  // namespace agon
