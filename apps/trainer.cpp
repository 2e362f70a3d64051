#include "apps/trainer.h"

#include <chrono>
#include <cmath>

#include "autograd/tape.h"
#include "core/copy.h"
#include "core/profile.h"
#include "ops/elementwise.h"
#include "ops/grad_norm.h"
#include "ops/linear_cross_entropy.h"

namespace agon {

/// What the micro-batches of one step add up to.
struct Trainer::Sums {
  double loss = 0, dropped = 0;
  std::map<std::string, double> losses;   // means over layers
  std::vector<std::vector<double>> load;  // per layer with experts
  std::vector<int> layers;                // the blocks that `load` is of
};

namespace {

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
    : config_(config), model_(model), optimizer_(optimizer), data_(data) {}

RouterContext Trainer::context(int64_t step) const {
  RouterContext c;
  c.step = step;
  c.mode = Mode::train;
  c.seed = uint64_t(config_.seed);
  return c;
}

void Trainer::forward_backward(const Batch& batch, int64_t step, double share, Sums& sums) {
  const Sequences at = sequences_of(batch);
  Tape tape(optimizer_.parameters());
  const auto fail = [&] {
    const std::string where = first_non_finite_in(model_, at, context(step));
    throw Error(text("step ", step, ": the loss is not finite; first found in the ",
                     where.empty() ? "head or a routing loss" : where, "; the optimizer was not applied"));
  };
  Passed passed;
  try {
    passed = model_(at, context(step));
  } catch (const UserError&) { throw; } catch (const Error&) {
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
  size_t with_experts = 0;
  for (const Statistics& s : passed.statistics) with_experts += bool(s.load);
  for (const Losses& layer : passed.losses)
    for (const Loss& loss : layer) {
      total = add(total, scale(loss.value, loss.coefficient * share));
      sums.losses[loss.name] += loss.value.item() * share / double(with_experts);
    }
  if (!std::isfinite(total.item())) fail();
  for (size_t i = 0, layer = 0; i < passed.statistics.size(); ++i) {
    const Statistics& s = passed.statistics[i];
    if (!s.load) continue;
    if (sums.load.size() == layer) {
      sums.load.emplace_back(size_t(s.load.size()), 0.0);
      sums.layers.push_back(int(i));
    }
    for (size_t e = 0; e < sums.load[layer].size(); ++e) sums.load[layer][e] += s.load.data<const double>()[e];
    if (const auto it = s.scalars.find("dropped"); it != s.scalars.end())
      sums.dropped += it->second * share / double(with_experts);
    ++layer;
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
      forward_backward(batch, step, 1.0 / double(micros), sums);
    });
  const Optimizer::Outcome outcome = optimizer_.update(step, config_.train.steps);
  if (!outcome.finite) {
    const Parameter* p = first_non_finite(optimizer_.parameters());
    throw Error(text("step ", step, ": the gradient is not finite; first found in the gradient of ",
                     p ? p->name : std::string("(its norm overflows)"), "; the optimizer was not applied"));
  }
  for (size_t i = 0; i < sums.layers.size(); ++i)
    model_.blocks()[size_t(sums.layers[i])].experts->router().after_step(tensor_of(sums.load[i]));

  StepReport r;
  r.step = step + 1;
  r.loss = sums.loss;
  r.rate = outcome.rate;
  r.gradient_norm = outcome.gradient_norm;
  r.tokens = data_.tokens_per_step();
  r.losses = std::move(sums.losses);
  r.load = std::move(sums.load);
  r.dropped = sums.dropped;
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return r;
}

size_t Trainer::measure(int64_t sequences) {
  Arena arena;
  {
    const Arena::Scope scope(arena);
    Sums sums;
    forward_backward(data_.sequences(0, sequences), 0, 1, sums);
  }
  for (Parameter* p : optimizer_.parameters()) p->has_grad = false;
  return arena.extent();
}

}  // namespace agon
