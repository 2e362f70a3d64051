#include "apps/account.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>

namespace agon {

namespace {

bool has(const std::string& path, const char* piece) { return path.find(piece) != std::string::npos; }

int64_t number_in(const char* path) {
  std::ifstream in(path);
  int64_t n = -1;
  in >> n;
  return in ? n : -1;
}

}  // namespace

Account account(LanguageModel& model) {
  const Config& c = model.config();
  Account a;
  each_parameter(model, [&](const std::string& path, Parameter& p) {
    const int64_t parts = p.group == Group::expert ? c.moe.layer.experts / p.value.shape(0) : 1;
    const int64_t n = p.value.size() * parts;
    a.parameters += n;
    a.gradient_bytes += p.grad.bytes();
    a.value_bytes += p.value.bytes() + (p.master.address() != p.value.address() ? p.master.bytes() : 0);
    double used = double(n);
    if (has(path, ".feed_forward.experts.")) {
      const auto block = std::stoll(path.substr(path.find('.') + 1));
      used *= c.moe.router_of(block).options->experts_per_token() / double(c.moe.layer.experts);
    }
    a.active += used;
    const bool looked_up = path == "positions" || (path == "embedding" && !c.model.tied);
    if (p.init == Init::normal && !looked_up) a.forward_flops += 2 * used;
  });
  const int64_t head_width = c.model.head_width ? c.model.head_width : c.model.width / c.model.heads;
  a.forward_flops += double(c.model.layers) * 4.0 * double(c.model.heads * head_width) * double(c.model.sequence) / 2;
  return a;
}

int64_t available_memory() {
  int64_t available = 0;
  std::ifstream in("/proc/meminfo");
  for (std::string key; in >> key;) {
    int64_t kib = 0;
    in >> kib;
    in.ignore(64, '\n');
    if (key == "MemAvailable:") available = kib * 1024;
  }
  const int64_t limit = number_in("/sys/fs/cgroup/memory.max"), used = number_in("/sys/fs/cgroup/memory.current");
  if (limit > 0 && used >= 0) available = std::min(available, std::max<int64_t>(0, limit - used));
  return available;
}

int64_t peak_resident() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t(usage.ru_maxrss) * 1024;
}

}  // namespace agon
