#include "apps/report_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "apps/log.h"

namespace agon {

std::string describe(const Config& c, const Account& a, int64_t vocabulary) {
  std::string s = fmt::format("model: {} blocks, width {}, {} heads, vocabulary {}, context {}", c.model.layers,
                              c.model.width, c.model.heads, vocabulary, c.model.sequence);
  if (c.moe.enabled) s += fmt::format(", {} experts ({})", c.moe.layer.experts, c.moe.router.strategy);
  return s + fmt::format("\n       {} parameters, {} active; {}FLOP per token forward, {}FLOP trained; {}\n",
                         short_number(double(a.parameters)), short_number(a.active), short_number(a.forward_flops),
                         short_number(a.training_flops()), c.precision);
}

namespace {

std::string rows(const MemoryUse& use) {
  std::string s;
  const auto row = [&](const char* what, int64_t bytes) {
    s += fmt::format("  {:<22}{:>12}{:>16}\n", what, short_bytes(double(bytes)), bytes);
  };
  s += fmt::format("  {:<22}{:>12}{:>16}\n", "memory", "", "bytes");
  row("arena (one step)", use.arena);
  row("parameters", use.parameters);
  row("gradients", use.gradients);
  row("optimizer", use.optimizer);
  row("tokens of the corpus", use.text);
  row("total", use.total());
  return s;
}

}  // namespace

std::string memory_table(const MemoryUse& use, int64_t fixed, int64_t per_sequence, int64_t available) {
  std::string s = rows(use);
  const int64_t room = available - fixed;
  const int64_t fits = per_sequence > 0 ? std::max<int64_t>(0, room / per_sequence) : 0;
  s += fmt::format("  largest micro-batch that fits {} free: {} sequences ({} each)\n", short_bytes(double(available)),
                   fits, short_bytes(double(per_sequence)));
  return s;
}

std::string time_table(const std::map<std::string, double>& seconds, Device device) {
  std::vector<std::pair<double, std::string>> rows;
  double sum = 0;
  for (const auto& [part, s] : seconds) {
    rows.emplace_back(s, part.empty() ? "(elsewhere)" : part);
    sum += s;
  }
  std::ranges::sort(rows, std::greater());
  std::string table = fmt::format("  {:<16}{:>9}{:>8}\n", "time per part", "seconds", "share");
  for (const auto& [s, part] : rows)
    table += fmt::format("  {:<16}{:>9.2f}{:>7.1f}%\n", part, s, sum > 0 ? 100 * s / sum : 0.0);
  if (device.kind != Device::cpu)
    table += text("  (of the host: what ", device, " was given to do counts where the host waited for it)\n");
  return table;
}

void require_room(const MemoryUse& use, int64_t available, Device device, const std::string& found) {
  if (device.kind == Device::cpu || (use.total() <= available && found.empty())) return;
  throw UserError(text("device = \"", device, "\": too little memory: ", short_bytes(double(available)),
                       " for what follows", found.empty() ? "" : " (" + found + ")",
                       "; lower train.micro_batch, or set model.recompute = true or precision = \"bf16\"\n",
                       rows(use)));
}

}  // namespace agon
