#include "apps/bench.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "apps/atomic_file.h"
#include "apps/bench_measure.h"
#include "apps/bench_report.h"
#include "apps/verbs.h"
#include "core/gpu.h"
#include "core/parallel.h"

namespace agon {

namespace {

struct CaseGroup {
  const char* name;
  BenchCases (*cases)(const BenchOptions&);
};
constexpr CaseGroup kGroups[] = {{"ops", ops_cases}, {"layer", layer_cases}, {"train", train_cases}};

BenchOptions options_from(const BenchArguments& a) {
  BenchOptions o;
  require(a.device == "cpu" || a.device == "cuda", "--device ", a.device, ": expected cpu or cuda");
  o.device = {a.device == "cuda" ? Device::cuda : Device::cpu, 0};
  const bool gpu = o.device.kind == Device::cuda;
  require(a.precision.empty() || a.precision == "fp32" || a.precision == "bf16", "--precision ", a.precision,
          ": expected fp32 or bf16");
  o.dtype = a.precision == "bf16" || (a.precision.empty() && gpu) ? DType::bf16 : DType::f32;
  o.seconds = a.seconds > 0 ? a.seconds : a.tiny ? 1e-3 : gpu ? 1 : 0.5;
  o.all = a.all;
  o.tiny = a.tiny;
  o.config = a.config;
  o.overrides = a.overrides;
  return o;
}

bool asked_for(const BenchCase& c, const std::string& filter) {
  return (c.group + ' ' + c.name + ' ' + c.shape).find(filter) != std::string::npos;
}

/// What is being measured, on stderr: a terminal shows the last line alone.
void show_progress(const BenchCase& c, size_t number, size_t of) {
  const bool live = isatty(STDERR_FILENO) == 1;
  std::fprintf(stderr, live ? "\r\033[K[%zu/%zu] %s %s %s" : "[%zu/%zu] %s %s %s\n", number, of, c.group.c_str(),
               c.name.c_str(), c.shape.c_str());
  if (live && number == of) std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
}

}  // namespace

int bench(const BenchArguments& arguments) {
  const BenchOptions options = options_from(arguments);
  set_threads(arguments.threads);
  use_device(options.device);
  const auto wanted = [&](const CaseGroup& g) {
    return arguments.groups.empty() || std::ranges::count(arguments.groups, g.name) > 0;
  };
  const auto cases_of = [&](const CaseGroup& g) {
    BenchCases cases = wanted(g) ? g.cases(options) : BenchCases{};
    std::erase_if(cases, [&](const BenchCase& c) { return !asked_for(c, arguments.filter); });
    return cases;
  };
  if (arguments.list) {
    for (const CaseGroup& g : kGroups)
      for (const BenchCase& c : cases_of(g)) std::printf("%s %s %s\n", g.name, c.name.c_str(), c.shape.c_str());
    return 0;
  }

  PeakProbe probe(options);
  const BenchPeak start = probe();
  std::vector<BenchRow> rows;
  bool failed = false;
  for (const CaseGroup& g : kGroups) {
    const BenchCases cases = cases_of(g);
    for (size_t i = 0; i < cases.size(); ++i) {
      if (!options.tiny) show_progress(cases[i], i + 1, cases.size());
      const BenchResult result = measure(cases[i], options, probe);
      failed |= !result.error.empty();
      rows.push_back({cases[i], result, gpu_clocks(options.device)});
      rows.back().measured.prepare = {};
      // After each case: a run that is cut short has given what it measured.
      if (!arguments.json.empty())
        write_atomically(arguments.json, bench_json(rows, options, start, arguments.command));
    }
  }
  require(!rows.empty(), "--filter ", arguments.filter, ": no case is called so; --list shows them");
  std::printf("peak at start: %.1f GFLOP/s; copy %.1f GB/s\n", start.flops / 1e9, start.bytes / 1e9);
  std::fputs(bench_table(rows).c_str(), stdout);
  return failed ? 1 : 0;
}

}  // namespace agon
