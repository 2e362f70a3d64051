#include "apps/bench_report.h"

#include <fmt/format.h>

#include <cstdio>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/account.h"
#include "apps/gemm_library.h"
#include "apps/machine.h"
#include "core/gpu.h"
#include "core/parallel.h"
#include "ops/cpu/gemm.h"

namespace agon {

namespace {

using Json = nlohmann::ordered_json;

std::string number(double value, int digits) { return value > 0 ? fmt::format("{:.{}f}", value, digits) : "-"; }
std::string percent(double share) { return share > 0 ? fmt::format("{:.1f}%", 100 * share) : "-"; }

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string version_of(int v) { return fmt::format("{}.{}", v / 1000, v % 1000 / 10); }

Json machine(Device device) {
  Json m = {{"processor", processor_name()},
            {"threads", threads()},
            {"vectors", cpu::gemm_instruction_set()},
            {"memory_available", available_memory()}};
  if (device.kind == Device::cpu) return m;
  const Gpus gpus = find_gpus();
  const Gpu& gpu = gpus.found[size_t(device.index)];
  m["gpu"] = {{"name", gpu.name},
              {"compute_capability", fmt::format("{}.{}", gpu.major, gpu.minor)},
              {"memory", gpu.memory},
              {"processors", gpu.processors},
              {"clock_mhz", gpu.clock_mhz},
              {"l2_bytes", gpu.l2_bytes},
              {"driver_cuda", version_of(gpus.driver)},
              {"runtime_cuda", version_of(gpus.runtime)}};
  return m;
}

Json row_json(const BenchRow& row) {
  const auto& [c, r, clocks] = row;
  Json j = {{"group", c.group}, {"case", c.name}, {"shape", c.shape}, {"dtype", name_of(c.dtype)}};
  if (c.threads > 0) j["threads"] = c.threads;
  j["flops"] = c.flops;
  j["bytes"] = c.bytes;
  if (!r.error.empty()) {
    j["error"] = r.error;
    return j;
  }
  j["milliseconds"] = 1e3 * r.seconds;
  j["spread"] = r.spread;
  j["rounds"] = r.rounds;
  j["iterations"] = r.iterations;
  j["gflops_per_second"] = flops_per_second(c, r) / 1e9;
  j["share_of_peak"] = share_of_peak(c, r);
  j["gigabytes_per_second"] = bytes_per_second(c, r) / 1e9;
  j["share_of_copy"] = share_of_copy(c, r);
  if (c.tokens > 0) j["tokens_per_second"] = c.tokens / r.seconds;
  j["peak_gflops_per_second"] = r.peak.flops / 1e9;
  j["copy_gigabytes_per_second"] = r.peak.bytes / 1e9;
  for (const auto& [name, value] : r.figures) j[name] = value;
  double all = 0;
  for (const auto& [part, seconds] : r.parts) all += seconds;
  for (const auto& [part, seconds] : r.parts) j["parts"][part.empty() ? "elsewhere" : part] = seconds / all;
  if (!clocks.empty()) j["clocks"] = clocks;
  return j;
}

}  // namespace

std::string bench_table(const std::vector<BenchRow>& rows) {
  size_t name = 4, shape = 5;
  for (const auto& [c, r, clocks] : rows) {
    name = std::max(name, c.group.size() + 1 + c.name.size());
    shape = std::max(shape, c.shape.size());
  }
  std::string table = fmt::format("{:<{}} {:<{}} {:<5}{:>10}{:>8}{:>10}{:>8}{:>9}{:>8}{:>10}\n", "case", name, "shape",
                                  shape, "dtype", "ms", "spread", "GFLOP/s", "of peak", "GB/s", "of copy", "tokens/s");
  for (const auto& [c, r, clocks] : rows) {
    table += fmt::format("{:<{}} {:<{}} {:<5}", c.group + ' ' + c.name, name, c.shape, shape, name_of(c.dtype));
    if (!r.error.empty()) {
      table += "  failed: " + r.error + '\n';
      continue;
    }
    table += fmt::format("{:>10.3f}{:>8}{:>10}{:>8}{:>9}{:>8}{:>10}\n", 1e3 * r.seconds, percent(r.spread),
                         number(flops_per_second(c, r) / 1e9, 1), percent(share_of_peak(c, r)),
                         number(bytes_per_second(c, r) / 1e9, 1), percent(share_of_copy(c, r)),
                         number(c.tokens / r.seconds, 0));
  }
  return table;
}

std::string bench_json(const std::vector<BenchRow>& rows, const BenchOptions& options, const BenchPeak& start,
                       const std::string& command) {
  Json j = {{"schema", 1},
            {"date", now_utc()},
            {"command", command},
            {"device", text(options.device)},
            {"seconds_per_case", options.seconds},
            {"tiny", options.tiny},
            {"machine", machine(options.device)},
            {"peak_gflops_per_second_at_start", start.flops / 1e9},
            {"copy_gigabytes_per_second_at_start", start.bytes / 1e9},
            {"cases", Json::array()}};
  for (const GemmLibrary* library : options.libraries) j["libraries"][library->name] = library->version();
  for (const BenchRow& row : rows) j["cases"].push_back(row_json(row));
  return j.dump(1) + '\n';
}

std::string gpu_clocks(Device device) {
  if (device.kind != Device::cuda) return "";
  const std::string command = fmt::format(
      "nvidia-smi --id={} --query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu "
      "--format=csv,noheader 2>/dev/null",
      device.index);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  char line[256] = "";
  if (!pipe || !std::fgets(line, sizeof line, pipe.get())) return "";
  const std::string found(line);
  return found.substr(0, found.find('\n'));
}

}  // namespace agon
