#pragma once
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "apps/config_file.h"
#include "apps/trainer.h"
#include "core/copy.h"
#include "tests/apps/tiny_run.h"

namespace agon::testing {

/// What a training gives, the same on every rank and, up to rounding, on any number of them.
struct Outcome {
  std::vector<double> losses;                 // a step
  std::vector<double> gradient_norms;         // likewise
  std::vector<std::vector<int32_t>> choices;  // per step and layer with experts: each token's experts, behind -1
  std::map<std::string, Tensor> parameters;   // whole masters, f64
  std::map<std::string, Tensor> states;       // the routers', f64
  int64_t competing = 0;                      // layers in competition, summed over steps
  std::vector<StepReport> reports;
};

/// A training without files on the ranks of `all`.
struct RanksRun {
  Config config;
  Ranks ranks;
  Corpus corpus;
  LanguageModel model;
  Optimizer optimizer;
  TrainingData data;
  Trainer trainer;

  RanksRun(Communicator& all, const Config& c)
      : config(c),
        ranks(config, all),
        corpus(load_corpus(config.data)),
        model(config, corpus.tokenizer->vocabulary(), *ranks.experts.group),
        optimizer(parameters(placed(model)), config.optimizer, config.parallel, ranks),
        data(corpus, config.data, config.model.sequence, config.train.batch, uint64_t(config.seed)),
        trainer(config, model, optimizer, data, ranks) {}

  /// What all ranks' tokens choose in a step, in the order of the batch, from a forward pass of its own.
  void note_choices(int64_t step, Outcome& outcome) {
    const Tape::Pause pause;
    const int64_t micros = config.train.micro_batch ? config.train.batch / config.train.micro_batch : 1;
    const size_t before = outcome.choices.size();
    for (int64_t micro = 0; micro < micros; ++micro) {
      const Batch batch = data.batch(step, {micro, micros, ranks.rank(), ranks.size()});
      std::vector<Pairs> decided;
      RouterContext context;
      context.step = step;
      context.seed = uint64_t(config.seed);
      context.schedule = &trainer.schedule();
      context.everyone = &ranks.all;
      context.decided = &decided;
      model(sequences_of(batch, model.device()), context);
      size_t layer = before;
      for (const Pairs& pairs : decided) {
        if (!pairs.expert) continue;
        const Tensor expert = on_host(pairs.expert), offsets = on_host(pairs.token_offsets);
        const auto e = expert.data<const int32_t>(), offset = offsets.data<const int32_t>();
        std::vector<int32_t> list;
        for (size_t t = 0; t + 1 < offset.size(); ++t) {
          list.push_back(-1);
          list.insert(list.end(), e.begin() + offset[t], e.begin() + offset[t + 1]);
        }
        const Tensor all = ranks.all.all_gather(tensor_of(list));
        if (layer == outcome.choices.size()) outcome.choices.emplace_back();
        auto& noted = outcome.choices[layer++];
        noted.insert(noted.end(), all.data<int32_t>().begin(), all.data<int32_t>().end());
      }
    }
  }

  Outcome operator()(int64_t steps) {
    Outcome outcome;
    for (int64_t step = 0; step < steps; ++step) {
      note_choices(step, outcome);
      const StepReport r = trainer.step(step, step);
      outcome.losses.push_back(r.loss);
      outcome.gradient_norms.push_back(r.gradient_norm);
      outcome.competing += r.competing;
      outcome.reports.push_back(r);
    }
    each_parameter(model, [&](const std::string& name, Parameter& p) {
      const Tensor whole = p.group == Group::expert ? ranks.experts.group->all_gather(p.master) : p.master;
      outcome.parameters[name] = converted(on_host(whole), DType::f64);
    });
    each_state(model,
               [&](const std::string& name, Tensor& t) { outcome.states[name] = converted(on_host(t), DType::f64); });
    return outcome;
  }
};

/// Whether all ranks have the same losses and parameters, to the bit. Collective.
inline bool same_on_all(const Outcome& outcome, Communicator& all) {
  bool same = true;
  const auto compare = [&](const Tensor& mine) {
    const Tensor first = clone(mine);
    all.broadcast(first, 0);
    same = same && std::memcmp(first.address(), mine.address(), size_t(mine.bytes())) == 0;
  };
  compare(tensor_of(outcome.losses));
  for (const auto& [name, whole] : outcome.parameters) compare(whole);
  for (const auto& [name, whole] : outcome.states) compare(whole);
  return same;
}

/// |a - b| / |b|, as vectors; 0 / 0 is 0.
inline double distance(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), "shapes ", a.shape(), " and ", b.shape());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < size_t(a.size()); ++i) {
    const double x = a.data<const double>()[i], y = b.data<const double>()[i];
    difference += (x - y) * (x - y);
    norm += y * y;
  }
  return difference == 0 ? 0 : std::sqrt(difference / norm);
}

}  // namespace agon::testing
