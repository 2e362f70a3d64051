#include "apps/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "apps/non_finite.h"
#include "autograd/tape.h"
#include "core/copy.h"
#include "core/profile.h"
#include "distributed/together.h"
#include "ops/accumulate.h"
#include "ops/elementwise.h"
#include "ops/grad_norm.h"
#include "ops/linear_cross_entropy.h"

namespace agon {

void Trainer::Kept::add(const Tensor& t) {
  const Arena::Outside outside;
  if (tensors.size() == used) tensors.emplace_back();
  Tensor& kept = tensors[used++];
  if (!kept || kept.shape() != t.shape()) kept = Tensor(t.shape(), t.dtype(), t.device());
  copy(kept, t);
}

Trainer::Trainer(const Config& config, LanguageModel& model, Optimizer& optimizer, const TrainingData& data,
                 Ranks& ranks)
    : config_(config),
      model_(model),
      optimizer_(optimizer),
      data_(data),
      ranks_(ranks),
      schedule_(config.competing_layers(), config.train.steps, uint64_t(config.seed)),
      arena_(model.device()),
      log_(model.device()),
      total_({1}, DType::f64, model.device()),
      candidates_(model.blocks().size()) {
  for (const Block& block : model.blocks())
    chosen_.push_back(block.experts ? Tensor({config.moe.layer.experts}, DType::f64, model.device()) : Tensor());
}

void Trainer::restore(CompetitionSchedule::State schedule, const std::string& source) {
  schedule_ = CompetitionSchedule(config_.competing_layers(), config_.train.steps, uint64_t(config_.seed),
                                  std::move(schedule), source);
}

RouterContext Trainer::context(int64_t step) const {
  RouterContext c;
  c.step = step;
  c.mode = Mode::train;
  c.seed = uint64_t(config_.seed);
  c.everyone = &ranks_.all;
  return c;
}

void Trainer::begin() {
  for (Parameter* p : optimizer_.parameters()) p->has_grad = false;
  log_.clear();
  fill(total_, 0);
  for (const Tensor& chosen : chosen_) fill(chosen, 0);
  for (Kept& of_layer : candidates_) of_layer.used = 0;
}

/// From here to the log's read() nothing crosses between host and device, once the batch is there.
NumbersOfMicro Trainer::forward_backward(const Batch& batch, const Place& place) {
  RouterContext where = context(place.step);
  where.schedule = place.schedule;
  const Sequences at = sequences_of(batch, model_.device());
  const Tensor target = on_device(batch.target, model_.device());
  Tape tape(optimizer_.parameters(), place.last ? optimizer_.sum_when_ready() : Tape::Ready{});
  Passed passed;
  try {
    passed = model_(at, where, nullptr, {}, chosen_);
  } catch (const UserError&) { throw; } catch (const Error&) {
    refuse_pass(where, at);
    throw;  // not what this is about
  }
  CrossEntropy head;
  {
    const Part part("head");
    head = linear_cross_entropy(passed.hidden, model_.head(), target, double(data_.tokens_per_step()));
  }
  NumbersOfMicro m;
  m.loss = log_.add(head.loss);
  m.layers.resize(passed.losses.size());
  // A loss of a layer is a mean over this micro-batch's tokens: it counts by their share of the step's.
  Tensor total = head.loss;
  for (size_t i = 0; i < passed.losses.size(); ++i)
    for (const Loss& loss : passed.losses[i]) {
      total = add(total, scale(loss.value, loss.coefficient * place.share));
      m.layers[i].losses.emplace_back(loss.name, log_.add(loss.value));
    }
  m.total = log_.add(total);
  accumulate(total_, total);
  for (size_t i = 0; i < passed.statistics.size(); ++i) {
    const Statistics& s = passed.statistics[i];
    if (!s.load) continue;
    m.layers[i].load = log_.add(s.load);
    m.layers[i].figures = s.figures.names;
    m.layers[i].values = log_.add(s.figures.values);
    if (s.candidates) candidates_[i].add(s.candidates);
  }
  add_chosen(passed.statistics);
  tape.backward(total);
  return m;
}

void Trainer::add_chosen(const std::vector<Statistics>& statistics) {
  int64_t size = 0;
  for (const Tensor& chosen : chosen_) size += chosen.size();
  if (size == 0) return;
  if (ranks_.size() == 1) {
    for (size_t i = 0; i < chosen_.size(); ++i)
      if (chosen_[i]) accumulate(chosen_[i], statistics[i].chosen);
    return;
  }
  const Tensor all({size}, DType::f64, model_.device());
  const auto each = [&](auto&& f) {
    for (int64_t i = 0, at = 0; i < int64_t(chosen_.size()); at += chosen_[size_t(i++)].size())
      if (chosen_[size_t(i)]) f(size_t(i), all.part(at, chosen_[size_t(i)].size()));
  };
  each([&](size_t i, const Tensor& here) { copy(here, statistics[i].chosen); });
  ranks_.all.all_reduce(all);
  each([&](size_t i, const Tensor& here) { accumulate(chosen_[i], here); });
}

namespace {

std::string bad_loss(int64_t step, const std::string& found) {
  return text("step ", step + 1, ": the loss is not finite; first found in the ",
              found.empty() ? "head or a routing loss" : found, "; the optimizer was not applied");
}

std::string bad_gradient(int64_t step, const std::string& found) {
  return text("step ", step + 1, ": the gradient is not finite; first found in the gradient of ",
              found.empty() ? "(its norm overflows)" : found, "; the optimizer was not applied");
}

}  // namespace

/// Throws where a pass that failed on this rank did so for numbers that are not finite. The other ranks are elsewhere,
/// so only what needs none of them is looked at.
void Trainer::refuse_pass(RouterContext where, const Sequences& at) {
  std::string found = non_finite_parameter(model_);
  if (found.empty() && ranks_.experts.group->size() == 1) {
    where.everyone = ranks_.experts.group.get();
    try {
      found = non_finite_output(model_, at, where).where;
    } catch (const Error&) {  // what failed before matters more
    }
  }
  if (!found.empty())
    throw Error(bad_loss(where.step, ranks_.size() > 1 ? text(found, " on rank ", ranks_.rank()) : found));
}

Batch Trainer::batch(int64_t data_step, int64_t micro) const {
  const Part part("data");
  return data_.batch(data_step, {micro, micro_batches(), ranks_.rank(), ranks_.size()});
}

/// Throws where the log says that the device has left the optimizer out. All ranks have the same log, so they look for
/// the reason together.
void Trainer::check_finite(int64_t step, int64_t data_step, const std::vector<NumbersOfMicro>& micros, double loss,
                           double gradient_norm) {
  if (!std::isfinite(loss)) {
    const auto first = std::ranges::find_if(micros, [&](const NumbersOfMicro& m) {
      bool all = true;
      for (int rank = 0; rank < log_.ranks(); ++rank) all = all && std::isfinite(log_.value(m.total, rank));
      return !all;
    });
    RouterContext where = context(step);
    where.schedule = &schedule_;
    std::string found = earliest({0, non_finite_parameter(model_)}, ranks_.all);
    if (found.empty())
      arena_([&] {
        const Batch again = batch(data_step, first == micros.end() ? 0 : first - micros.begin());
        found = earliest(non_finite_output(model_, sequences_of(again, model_.device()), where), ranks_.all);
      });
    throw AgreedError(bad_loss(step, found));
  }
  if (!std::isfinite(gradient_norm)) {
    if (ranks_.size() > 1) {  // in sums nobody sees whose they are
      begin();
      for (int64_t micro = 0; micro < micro_batches(); ++micro) pass(step, data_step, micro, false);
    }
    const Parameter* p = first_non_finite(optimizer_.parameters());
    throw AgreedError(bad_gradient(step, earliest({0, p ? p->name : ""}, ranks_.all)));
  }
}

/// One micro-batch forward and backward.
NumbersOfMicro Trainer::pass(int64_t step, int64_t data_step, int64_t micro, bool last) {
  NumbersOfMicro m;
  arena_([&] {
    const double share = 1.0 / double(micro_batches() * ranks_.size());
    m = forward_backward(batch(data_step, micro), {step, &schedule_, share, last});
  });
  return m;
}

StepReport Trainer::step(int64_t step, int64_t data_step) {
  const auto start = std::chrono::steady_clock::now();
  const Communication before = ranks_.communication();
  begin();
  std::vector<NumbersOfMicro> micros;
  for (int64_t micro = 0; micro < micro_batches(); ++micro)
    micros.push_back(pass(step, data_step, micro, micro + 1 == micro_batches()));
  StepReport r;
  StepLog::Place square_sum;
  arena_([&] {
    const Optimizer::Outcome outcome = optimizer_.update(step, config_.train.steps, total_);
    square_sum = log_.add(outcome.square_sum);
    r.rate = outcome.rate;
  });
  const StepLog::Place total = log_.add(total_);
  log_.read(ranks_.all);
  r.gradient_norm = std::sqrt(log_.value(square_sum));
  check_finite(step, data_step, micros, log_.value(total), r.gradient_norm);
  for (size_t i = 0; i < chosen_.size(); ++i)
    if (const auto& layer = model_.blocks()[i].experts) {
      const auto& [tensors, used] = candidates_[i];
      layer->router().after_step({chosen_[i], {tensors.begin(), tensors.begin() + std::ptrdiff_t(used)}, &ranks_.all});
    }
  r.step = step + 1;
  r.ranks = ranks_.size();
  r.tokens = data_.tokens_per_step();
  add_up(log_, micros, r);
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  communication_ = ranks_.communication() - before;
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
  begin();
  Arena arena(0, model_.device());
  {
    const Arena::Scope scope(arena);
    forward_backward(data_.sequences(0, sequences), {0, &measured, 1, false});
  }
  for (Parameter* p : optimizer_.parameters()) p->has_grad = false;
  return arena.extent();
}

}  // namespace agon
