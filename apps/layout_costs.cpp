#include "apps/layout_costs.h"

#include <algorithm>
#include <memory>

#include "apps/costs.h"
#include "distributed/echo.h"
#include "moe/journey_lists.h"

namespace agon {

namespace {

int64_t micro_batches(const TrainOptions& train) { return train.micro_batch ? train.batch / train.micro_batch : 1; }

/// A rank's part of a micro-batch.
int64_t sequences_of_rank(const TrainOptions& train, int ranks) {
  return (train.micro_batch ? train.micro_batch : train.batch) / ranks;
}

const std::vector<Collective> kSums = {Collective::all_reduce, Collective::reduce_scatter},
                              kGathers = {Collective::all_gather},
                              kAll = {Collective::all_to_all, Collective::all_reduce, Collective::broadcast,
                                      Collective::all_gather, Collective::reduce_scatter};

/// One rank of a layout as a training has it, alone.
struct LoneRank {
  Config config;
  const Corpus& corpus;
  std::unique_ptr<Communicator> all;
  Ranks ranks;
  LanguageModel model;
  Optimizer optimizer;
  TrainingData data;
  Trainer trainer;

  LoneRank(const Config& c, const Corpus& text, const Layout& layout)
      : config(c),
        corpus(text),
        all(make_echo(layout.ranks, {int(layout.expert), int(layout.data())})),
        ranks(config, *all),
        model(config, corpus.tokenizer->vocabulary(), *ranks.experts.group),
        optimizer(placed(), config.optimizer, config.parallel, ranks),
        data(corpus, config.data, config.model.sequence, config.train.batch, uint64_t(config.seed)),
        trainer(config, model, optimizer, data, ranks) {}

  std::vector<Parameter*> placed() {
    move_to(model, config.use_device());
    return parameters(model);
  }

  /// Takes a step over so many micro-batches of so many sequences on each rank. Returns the bytes sent but for rows.
  int64_t step(int64_t sequences, int64_t micros) {
    Config c = config;
    c.train.micro_batch = sequences * ranks.size();
    c.train.batch = c.train.micro_batch * micros;
    const TrainingData of_step(corpus, c.data, c.model.sequence, c.train.batch, uint64_t(c.seed));
    const int64_t before = sent(kAll);
    Trainer(c, model, optimizer, of_step, ranks).step(0, 0);
    return sent(kAll) - before;
  }

  int64_t sent(const Communicator& group, const std::vector<Collective>& operations) const {
    int64_t bytes = 0;
    for (const auto& [operation, t] : group.traffic())
      if (std::ranges::count(operations, operation)) bytes += t.sent;
    return bytes;
  }
  /// Between all ranks and between replicas: all but the exchange of rows.
  int64_t sent(const std::vector<Collective>& operations) const {
    return sent(ranks.all, operations) + sent(*ranks.experts.replicas, operations);
  }
};

}  // namespace

EvenExchange even_exchange(const Config& config, int64_t block, int64_t tokens, int ranks) {
  if (ranks == 1) return {};
  const ExchangeOptions options = config.parallel.rows();
  ExchangeOptions even = options;
  if (!options.bounded) even.bound = 1;
  const ExchangeBounds each = bounds_of(even, tokens, config.moe.router_of(block).options->experts_per_token(),
                                        config.moe.layer.experts, ranks);
  const DType compute = config.numbers().compute;
  const int64_t element = options.bf16 && compute == DType::f32 ? 2 : size_of(compute), others = ranks - 1;
  EvenExchange e;
  e.rows = others * each.rows;
  e.pairs = others * each.pairs;
  e.row_bytes = e.rows * config.model.width * element;
  e.weight_bytes = e.pairs * size_of(accumulator_dtype(compute));
  e.list_bytes = 4 * e.pairs + (options.bounded ? 0 : 4 * others);
  return e;
}

std::vector<Layout> possible_layouts(const Config& config, int ranks) {
  const bool cut = config.train.micro_batch > 0;
  const int64_t sequences = cut ? config.train.micro_batch : config.train.batch, group = config.routing_group();
  require(sequences % (ranks * group) == 0, config.named(cut ? "train.micro_batch" : "train.batch"), ": ", sequences,
          " sequences do not divide over ", ranks, " ranks",
          group > 1 ? text(" in routing groups of ", group, " sequences") : "", "; expected a multiple of ",
          ranks * group);
  std::vector<Layout> layouts;
  const int64_t experts = config.moe.enabled ? config.moe.layer.experts : 1;
  for (int64_t expert = 1; expert <= std::min<int64_t>(ranks, experts); ++expert) {
    if (ranks % expert || experts % expert) continue;
    for (const bool shard : {false, true})
      if (ranks > 1 || !shard) layouts.push_back({ranks, expert, shard});
  }
  return layouts;
}

LayoutCosts costs_of(const Config& given, const Corpus& corpus, const Layout& layout, int64_t without_exchange,
                     int64_t arena) {
  Config config = given;
  config.parallel.expert = layout.expert;
  config.parallel.shard_optimizer = layout.shard_optimizer;
  const int64_t micros = micro_batches(config.train), sequences = sequences_of_rank(config.train, layout.ranks),
                unit = config.routing_group();
  LoneRank rank(config, corpus, layout);

  LayoutCosts costs;
  costs.layout = layout;
  costs.memory = lasting_memory(rank.model, corpus);
  costs.memory.optimizer = rank.optimizer.bytes();
  costs.memory.arena = arena ? arena : int64_t(rank.trainer.measure(sequences));
  if (without_exchange) costs.buffers = std::max<int64_t>(0, costs.memory.arena - without_exchange);
  if (layout.ranks == 1) return costs;

  // The exchange of rows, by its formula.
  const int64_t tokens = sequences * config.model.sequence;
  for (int64_t block = 0; config.moe.enabled && block < config.model.layers; ++block) {
    if (!config.moe.has_experts(block)) continue;
    const EvenExchange e = even_exchange(config, block, tokens, int(layout.expert));
    if (costs.exchanges == 0) costs.exchange = e;
    costs.exchanges += micros;
    costs.out += 2 * micros * e.row_bytes;
    costs.home += 2 * micros * e.row_bytes;
    costs.lists += micros * (e.list_bytes + 2 * e.weight_bytes);
  }

  // The rest, by what happens.
  const Communicator& group = *rank.ranks.experts.group;
  if (!config.competing_layers().empty() && layout.expert > 1) {
    const int64_t before = rank.sent(group, kAll);
    rank.trainer.measure(unit);
    costs.most_in_competition = (rank.sent(group, kAll) - before) * micros * sequences / unit;
  }
  int64_t step = rank.step(unit, micros);
  // Where scores of all tokens go around, nothing less than a whole step tells how much.
  if (rank.step(2 * unit, micros) != step) step = rank.step(sequences, micros);
  const int64_t sums = rank.sent(kSums), gathers = rank.sent(kGathers);
  for (Parameter* p : rank.optimizer.parameters()) {
    fill(p->grad, 0);
    p->has_grad = true;
  }
  rank.optimizer.update(1, config.train.steps, Tensor({1}, DType::f64, rank.model.device()).zero());
  costs.gradients = rank.sent(kSums) - sums;
  costs.masters = rank.sent(kGathers) - gathers;
  costs.others = step - costs.gradients - costs.masters;
  return costs;
}

}  // namespace agon
