#include "apps/costs.h"

#include <malloc.h>

#include <algorithm>
#include <cstdio>

#include "apps/account.h"
#include "core/gpu.h"

namespace agon {

MemoryUse lasting_memory(LanguageModel& model, const Corpus& corpus) {
  const Account a = account(model);
  MemoryUse use;
  use.parameters = a.value_bytes;
  use.gradients = a.gradient_bytes;
  if (model.device().kind == Device::cpu) use.text = int64_t(corpus.train.id.size() + corpus.valid.id.size()) * 4;
  return use;
}

void show_costs(const Config& config, LanguageModel& model, Trainer& trainer, MemoryUse use, bool dry_run,
                Ranks& ranks) {
  if (ranks.first()) std::fputs(describe(config, account(model), model.vocabulary()).c_str(), stdout);
  const Device device = model.device();
  const bool gpu = device.kind != Device::cpu;
  // Of one rank; its part of a micro-batch.
  const int64_t micro = (config.train.micro_batch ? config.train.micro_batch : config.train.batch) / ranks.size();
  const int64_t there = gpu ? use.total() : 0;  // what of it is in place
  // Two sizes give what a sequence takes; a micro-batch too small for the second is never exceeded.
  const int64_t unit = config.routing_group();
  int64_t one = 0, two = 0;
  try {
    one = int64_t(trainer.measure(unit));
    two = micro >= 2 * unit ? int64_t(trainer.measure(2 * unit)) : 2 * one;
  } catch (const OutOfMemory& e) { require_room(use, free_memory(device) + there, device, e.what()); }
  const int64_t each = (two - one) / unit, fixed = 2 * one - two;
  // A GPU may not hold what is to be found too large.
  const bool exactly = dry_run && micro > 2 * unit && !gpu;
  use.arena = exactly ? int64_t(trainer.measure(micro)) : fixed + each * micro;
  malloc_trim(0);
  const int64_t available = gpu ? free_memory(device) : available_memory() / ranks.on_this_host();
  if (dry_run) {
    if (ranks.first()) std::fputs(memory_table(use, fixed, each, available).c_str(), stdout);
    return;
  }
  require_room(use, available + there, device);
  if (!ranks.first()) return;
  const int64_t fit = std::max<int64_t>(0, (available - fixed) / std::max<int64_t>(1, each)) * ranks.size();
  std::printf("memory: about %s%s; largest micro-batch that fits: %lld sequences (--dry-run shows the table)\n",
              short_bytes(double(use.total())).c_str(), ranks.size() > 1 ? " a rank" : "", static_cast<long long>(fit));
}

}  // namespace agon
