#include <malloc.h>

#include <cstdio>
#include <map>

#include "apps/account.h"
#include "apps/atomic_file.h"
#include "apps/config_file.h"
#include "apps/plan_report.h"
#include "apps/verbs.h"
#include "core/gpu.h"
#include "core/parallel.h"

namespace agon {

int plan(const PlanArguments& arguments) {
  require(arguments.ranks >= 1, "agon plan --ranks ", arguments.ranks, ": expected at least 1");
  Config config = load_config(arguments.config, arguments.overrides);
  set_threads(int(config.threads));
  const std::string wanted = config.device;
  const bool elsewhere = wanted != "cpu" && find_gpus().found.empty();
  if (elsewhere) config.device = "cpu";
  const std::vector<Layout> layouts = possible_layouts(config, arguments.ranks);
  const Corpus corpus = load_corpus(config.data);

  LayoutComparison comparison;
  comparison.room = int64_t(arguments.memory_gib * double(1 << 30));
  std::map<int64_t, int64_t> arenas;  // by the ranks that experts are spread over
  for (const Layout& layout : layouts) {
    const int64_t known = arenas.contains(layout.expert) ? arenas.at(layout.expert) : 0;
    LayoutCosts costs = costs_of(config, corpus, layout, layout.expert > 1 ? arenas.at(1) : 0, known);
    if (elsewhere) costs.memory.text = 0;  // it stays on the host
    arenas.emplace(layout.expert, costs.memory.arena);
    comparison.layouts.push_back(costs);
    malloc_trim(0);
  }

  const int64_t micro = config.train.micro_batch ? config.train.micro_batch : config.train.batch;
  std::printf("%s on %d rank%s: %lld of a micro-batch's %lld sequences each, %lld micro-batch%s a step, %s, %s\n",
              arguments.config.c_str(), arguments.ranks, arguments.ranks == 1 ? "" : "s",
              static_cast<long long>(micro / arguments.ranks), static_cast<long long>(micro),
              static_cast<long long>(config.train.batch / micro), config.train.batch == micro ? "" : "es",
              wanted.c_str(), config.precision.c_str());
  if (elsewhere)
    std::printf("there is no GPU here: a step's arena is what it takes on a CPU, which differs somewhat\n");
  std::fputs(plan_table(comparison, config).c_str(), stdout);
  if (!arguments.json.empty()) write_atomically(arguments.json, plan_json(comparison, config, arguments.config));
  return 0;
}

}  // namespace agon
