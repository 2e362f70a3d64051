#include "apps/bench.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <span>

#include "apps/atomic_file.h"
#include "apps/bench_measure.h"
#include "apps/bench_report.h"
#include "apps/gemm_library.h"
#include "apps/job.h"
#include "apps/report_tables.h"
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
constexpr CaseGroup kComparison[] = {{"ops", compare_cases}};

/// The other libraries there are; says which are not.
std::vector<const GemmLibrary*> libraries_for(const BenchArguments& a) {
  require(a.device == "cpu", "--compare measures on the CPU, but --device is ", a.device);
  require(a.groups.empty() || a.groups == std::vector<std::string>{"ops"}, "--compare is of ops alone");
  const GemmLibraries libraries = find_gemm_libraries(program_folder());
  for (const std::string& why : libraries.missing) std::fprintf(stderr, "agon: %s\n", why.c_str());
  require(!libraries.found.empty(), "--compare: no other library to compare with; those missing are named above");
  return libraries.found;
}

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
  if (a.compare) o.libraries = libraries_for(a);
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

/// Behind the cases that are measured together with case i.
size_t end_of_group(const BenchCases& cases, size_t i) {
  size_t end = i + 1;
  while (end < cases.size() && !cases[i].together.empty() && cases[end].together == cases[i].together) ++end;
  return end;
}

int bench_with(const BenchArguments& arguments, const BenchOptions& options) {
  const bool first = !options.ranks || options.ranks->rank() == 0;
  set_threads(arguments.threads);
  use_device(options.device);
  const std::span<const CaseGroup> groups = arguments.compare ? std::span<const CaseGroup>(kComparison) : kGroups;
  const auto wanted = [&](const CaseGroup& g) {
    return arguments.groups.empty() || std::ranges::count(arguments.groups, g.name) > 0;
  };
  const auto cases_of = [&](const CaseGroup& g) {
    BenchCases cases = wanted(g) ? g.cases(options) : BenchCases{};
    std::erase_if(cases, [&](const BenchCase& c) { return !asked_for(c, arguments.filter); });
    return cases;
  };
  if (arguments.list) {
    if (!first) return 0;
    for (const CaseGroup& g : groups)
      for (const BenchCase& c : cases_of(g)) std::printf("%s %s %s\n", g.name, c.name.c_str(), c.shape.c_str());
    return 0;
  }

  PeakProbe probe(options);
  const BenchPeak start = peak_of_ranks(probe(0.3), options);
  std::vector<BenchRow> rows;
  for (const CaseGroup& g : groups) {
    const BenchCases cases = cases_of(g);
    for (size_t i = 0, next = 0; i < cases.size(); i = next) {
      next = end_of_group(cases, i);
      if (first && !options.tiny) show_progress(cases[i], next, cases.size());
      const std::vector<BenchResult> results = measure(std::span(cases).subspan(i, next - i), options, probe);
      for (size_t j = i; j < next; ++j) {
        rows.push_back({cases[j], results[j - i], gpu_clocks(options.device)});
        rows.back().measured.prepare = {};
      }
      // After each case: a run that is cut short has given what it measured.
      if (first && !arguments.json.empty())
        write_atomically(arguments.json, bench_json(rows, options, start, arguments.command));
    }
  }
  require(!rows.empty(), "--filter ", arguments.filter, ": no case is called so; --list shows them");
  if (!first) return 0;
  std::printf("peak at start: %.1f GFLOP/s; copy %.1f GB/s\n", start.flops / 1e9, start.bytes / 1e9);
  for (const GemmLibrary* library : options.libraries) std::printf("%s: %s\n", library->name, library->version());
  std::fputs(bench_table(rows).c_str(), stdout);
  for (const auto& [c, r, clocks] : rows)
    if (!r.parts.empty()) std::fputs(time_table(r.parts, options.device).c_str(), stdout);
  return std::ranges::any_of(rows, [](const BenchRow& row) { return !row.result.error.empty(); }) ? 1 : 0;
}

}  // namespace

int bench(const BenchArguments& arguments) {
  BenchOptions options = options_from(arguments);
  if (arguments.groups != std::vector<std::string>{"train"}) return bench_with(arguments, options);
  return run_as_rank(train_config(options).parallel, [&](Communicator& all) {
    if (all.size() > 1) options.ranks = &all;
    return bench_with(arguments, options);
  });
}

}  // namespace agon
