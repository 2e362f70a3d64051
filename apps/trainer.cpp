#include "apps/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "autograd/tape.h"
#include "core/copy.h"
#include "core/profile.h"
#include "moe/statistics.h"
#include "ops/elementwise.h"
#include "ops/grad_norm.h"
#include "ops/linear_cross_entropy.h"

namespace agon {

/// What the micro-batches of one step add up to.
struct Trainer::Sums {
  double loss = 0;
  int64_t competing = 0;                 // layers, counted in every micro-batch
  std::map<std::string, double> losses;  // means over layers
  // Statistics::figures, and the layers (counted by their micro-batches' shares) that have each; and all with experts.
  std::map<std::string, std::pair<double, double>> routing;
  double layers = 0;
  std::vector<std::vector<double>> load, chosen;  // per block, empty for dense ones; before dropping: chosen
  std::vector<std::vector<Tensor>> candidates;    // per block: of each micro-batch, outside the arena
};

namespace {

/// sum += t, element by element; an empty sum is one of zeros.
void accumulate(std::vector<double>& sum, const Tensor& t) {
  sum.resize(size_t(t.size()));
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += t.data<const double>()[i];
}

bool finite(const Tensor& x) {
  return visit_float(x.dtype(), [&]<class T>() {
    for (const T v : x.data<const T>())
      if (!std::isfinite(float(v))) return false;
    return true;
  });
}

}  // namespace

std::string first_non_finite_in(LanguageModel& model, const Sequences& at, const RouterContext& context) {
  std::string found;
  each_parameter(model, [&](const std::string& path, Parameter& p) {
    if (found.empty() && !finite(p.value)) found = "parameter " + path;
  });
  if (!found.empty()) return found;
  const Tape::Pause pause;
  try {
    const Passed passed = model(at, context, nullptr, [&](int block, const char* what, const Tensor& x) {
      if (found.empty() && !finite(x)) found = text("output of blocks.", block, ".", what);
    });
    if (found.empty() && !finite(passed.hidden)) found = "output of the last norm";
  } catch (const Error&) {  // a router refuses scores that are NaN
    if (found.empty()) throw;
  }
  return found;
}

Trainer::Trainer(const Config& config, LanguageModel& model, Optimizer& optimizer, const TrainingData& data)
    : config_(config),
      model_(model),
      optimizer_(optimizer),
      data_(data),
      schedule_(config.competing_layers(), config.train.steps, uint64_t(config.seed)) {}

void Trainer::restore(CompetitionSchedule::State schedule, const std::string& source) {
  schedule_ = CompetitionSchedule(config_.competing_layers(), config_.train.steps, uint64_t(config_.seed),
                                  std::move(schedule), source);
}

RouterContext Trainer::context(int64_t step) const {
  RouterContext c;
  c.step = step;
  c.mode = Mode::train;
  c.seed = uint64_t(config_.seed);
  return c;
}

void Trainer::forward_backward(const Batch& batch, int64_t step, const CompetitionSchedule& schedule, double share,
                               Sums& sums) {
  RouterContext where = context(step);
  where.schedule = &schedule;
  const Sequences at = sequences_of(batch);
  sums.load.resize(model_.blocks().size());
  sums.chosen.resize(model_.blocks().size());
  sums.candidates.resize(model_.blocks().size());
  std::vector<Tensor> counts_so_far;
  for (size_t i = 0; i < sums.chosen.size(); ++i) {
    if (model_.blocks()[i].experts) sums.chosen[i].resize(size_t(config_.moe.layer.experts));
    counts_so_far.push_back(tensor_of(sums.chosen[i]));
  }
  Tape tape(optimizer_.parameters());
  const auto fail = [&] {
    const std::string found = first_non_finite_in(model_, at, where);
    throw Error(text("step ", step + 1, ": the loss is not finite; first found in the ",
                     found.empty() ? "head or a routing loss" : found, "; the optimizer was not applied"));
  };
  Passed passed;
  try {
    passed = model_(at, where, nullptr, {}, counts_so_far);
  } catch (const UserError&) { throw; } catch (const Error&) {
    if (first_non_finite_in(model_, at, where).empty()) throw;  // not what this is about
    fail();
  }
  CrossEntropy head;
  {
    const Part part("head");
    head = linear_cross_entropy(passed.hidden, model_.head(), batch.target, double(data_.tokens_per_step()));
  }
  sums.loss += head.loss.item();
  // A loss of a layer is a mean over this micro-batch's tokens: it counts by their share of the step's.
  Tensor total = head.loss;
  std::map<std::string, std::pair<double, int>> seen;  // sum and number of layers
  for (const Losses& layer : passed.losses)
    for (const Loss& loss : layer) {
      total = add(total, scale(loss.value, loss.coefficient * share));
      auto& [sum, layers] = seen[loss.name];
      sum += loss.value.item();
      ++layers;
    }
  for (const auto& [name, figure] : seen) sums.losses[name] += share * figure.first / figure.second;
  if (!std::isfinite(total.item())) fail();
  for (size_t i = 0; i < passed.statistics.size(); ++i) {
    const Statistics& figures = passed.statistics[i];
    if (!figures.load) continue;
    accumulate(sums.load[i], figures.load);
    accumulate(sums.chosen[i], figures.chosen);
    if (figures.candidates) {
      const Arena::Outside outside;
      sums.candidates[i].push_back(clone(figures.candidates));
    }
    const std::map<std::string, double> scalars = figures.scalars();
    sums.competing += scalars.contains("agreement");
    for (const auto& [name, value] : scalars) {
      auto& [sum, weight] = sums.routing[name];
      sum += value * share;
      weight += share;
    }
    sums.layers += share;
  }
  tape.backward(total);
}

StepReport Trainer::step(int64_t step, int64_t data_step) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t micro_batch = config_.train.micro_batch ? config_.train.micro_batch : config_.train.batch;
  const int64_t micros = config_.train.batch / micro_batch;
  for (Parameter* p : optimizer_.parameters()) p->has_grad = false;
  Sums sums;
  for (int64_t micro = 0; micro < micros; ++micro)
    arena_([&] {
      Batch batch;
      {
        const Part part("data");
        batch = data_.batch(data_step, {micro, micros, 0, 1});
      }
      forward_backward(batch, step, schedule_, 1.0 / double(micros), sums);
    });
  const Optimizer::Outcome outcome = optimizer_.update(step, config_.train.steps);
  if (!outcome.finite) {
    const Parameter* p = first_non_finite(optimizer_.parameters());
    throw Error(text("step ", step + 1, ": the gradient is not finite; first found in the gradient of ",
                     p ? p->name : std::string("(its norm overflows)"), "; the optimizer was not applied"));
  }
  for (size_t i = 0; i < sums.chosen.size(); ++i)
    if (const auto& layer = model_.blocks()[i].experts) {
      layer->router().after_step({tensor_of(sums.chosen[i]), std::move(sums.candidates[i]), self_.get()});
    }

  StepReport r;
  r.step = step + 1;
  r.loss = sums.loss;
  r.rate = outcome.rate;
  r.gradient_norm = outcome.gradient_norm;
  r.tokens = data_.tokens_per_step();
  r.losses = std::move(sums.losses);
  for (auto& load : sums.load)
    if (!load.empty()) r.load.push_back(std::move(load));
  for (const auto& [name, figure] : sums.routing)  // a number of experts that no token of a layer has counts as 0 there
    r.routing[name] = figure.first / (name.starts_with("tokens_with_") ? sums.layers : figure.second);
  r.dropped = r.routing["dropped"];
  r.competing = sums.competing / micros;
  std::map<std::string, double> loads;  // of the whole step's, not of its micro-batches'
  for (const auto& load : r.load)
    for (const auto& [name, value] : load_figures(tensor_of(load))) loads[name] += value / double(r.load.size());
  for (const auto& [name, value] : loads) r.routing[name] = value;
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return r;
}

size_t Trainer::measure(int64_t sequences) {
  // The worst a step may ask for: as many layers compete as the cap allows.
  CompetitionSchedule::State worst{.steps = 1, .layers = {}};
  const auto rates = config_.competing_layers();
  int64_t competing = 0;
  for (const auto& [layer, rate] : rates)
    worst.layers[layer].events.assign(rate.rate > 0 && competing++ < schedule_.cap(), 0);
  const CompetitionSchedule measured(rates, 1, 0, std::move(worst), "the measured step");
  Arena arena;
  {
    const Arena::Scope scope(arena);
    Sums sums;
    forward_backward(data_.sequences(0, sequences), 0, measured, 1, sums);
  }
  for (Parameter* p : optimizer_.parameters()) p->has_grad = false;
  return arena.extent();
}

}  // namespace agon
