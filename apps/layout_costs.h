#pragma once
#include <cstdint>
#include <vector>

#include "apps/config.h"
#include "apps/corpus.h"
#include "apps/report_tables.h"

namespace agon {

/// How the ranks of a job are used: experts spread over `expert` of them, data over all.
struct Layout {
  int ranks = 1;
  int64_t expert = 1;
  bool shard_optimizer = false;
  int64_t data() const { return ranks / expert; }  ///< copies of an expert
};

/// What leaves a rank for others in one direction of one exchange, and comes to it likewise, when tokens choose evenly:
/// each different experts, all as likely (Placement of moe/journey_lists.h; with parallel.exchange = bounded, the
/// bounds).
struct EvenExchange {
  int64_t rows = 0, pairs = 0;
  int64_t row_bytes = 0;     // of those rows
  int64_t weight_bytes = 0;  // of those pairs' weights
  int64_t list_bytes = 0;    // once an exchange: who they are
};

/// What a rank needs and moves in a layout.
struct LayoutCosts {
  Layout layout;
  MemoryUse memory;           // as --dry-run says it on so many ranks
  int64_t buffers = 0;        // of memory.arena: what it takes more than with the experts on one rank
  EvenExchange exchange;      // of the first layer with experts
  int64_t exchanges = 0;      // layers with experts times micro-batches: each goes out and home, forward and backward
  int64_t out = 0, home = 0;  // bytes a rank sends in a step, of rows and their gradients; even routing
  int64_t lists = 0;          // likewise, of lists and weights
  int64_t gradients = 0;      // likewise, exactly: their sums, and of their norm and the loss
  int64_t masters = 0;        // likewise, exactly: a sharded optimizer's
  int64_t others = 0;         // likewise, exactly: loads, losses, figures of the first step
  int64_t most_in_competition = 0;  // out, home and lists of a step in which as many layers compete as may, at the
                                    // first weights; 0 where none ever does
  int64_t moved() const { return out + home + lists + gradients + masters + others; }
};

/// `tokens` are a rank's, in one pass.
EvenExchange even_exchange(const Config& config, int64_t block, int64_t tokens, int ranks);

/// What divides the ranks, the experts and the batch. UserError where nothing does.
std::vector<Layout> possible_layouts(const Config& config, int ranks);

/// Builds what one rank of the layout has, and takes a step with it, without the others. `without_exchange`: the arena
/// of the same ranks with expert = 1; `arena`: the layout's where it is known, else 0.
LayoutCosts costs_of(const Config& config, const Corpus& corpus, const Layout& layout, int64_t without_exchange = 0,
                     int64_t arena = 0);

}  // namespace agon
