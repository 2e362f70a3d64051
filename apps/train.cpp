#include <fmt/format.h>

#include <cmath>
#include <cstdio>

#include "apps/account.h"
#include "apps/causal.h"
#include "apps/config_dump.h"
#include "apps/config_file.h"
#include "apps/costs.h"
#include "apps/evaluate.h"
#include "apps/job.h"
#include "apps/run.h"
#include "apps/signals.h"
#include "apps/step_end.h"
#include "apps/utf8.h"
#include "core/gpu.h"
#include "core/profile.h"
#include "distributed/together.h"
#include "ops/cpu/peak.h"

namespace agon {

namespace {

/// A run from where it stands to its last step.
class Training : Run {
 public:
  using Run::Run;
  int operator()();

 private:
  int loop();
  StepEnd end_step(StepReport& report);
  void evaluate(StepReport& report);
  void sample();
  void save();
  void print_begin() const;
  void print_end(int code) const;
  bool last() const { return state.step == config.train.steps; }
  bool due(int64_t every) const { return every > 0 && state.step % every == 0; }
  bool improved(const StepReport& report) const {
    return report.evaluated && std::isfinite(report.val_loss) &&
           (state.best_val_loss < 0 || report.val_loss < state.best_val_loss);
  }

  std::string validation_;  // the last evaluation, for the report at the end
  bool best_ = false;       // the state that would be saved now is the best so far
};

void Training::evaluate(StepReport& report) {
  if (!valid) return;
  // What can never be causal is not refused its training: its validation says what it is.
  const Mode mode = noncausal_layers(config).empty() ? Mode::eval : Mode::eval_noncausal;
  // A causal token does not ask which sequences are beside its own.
  const int64_t whole = evaluation_batch(config), batch = mode == Mode::eval ? whole / ranks.size() : whole;
  const Evaluation e = agon::evaluate(*model, *valid, batch, mode, trainer->arena(), ranks.all);
  report.evaluated = true;
  report.val_loss = e.loss;
  report.val_bpb = e.bits_per_byte;
  report.val_causal = mode == Mode::eval;
  report.val_k = e.experts_per_token;
  report.configured_k = budget_of(config);
  validation_ = fmt::format("{:.4f} nats per token, perplexity {:.4f} ({})", e.loss, e.perplexity,
                            scope_in_words(*model, mode, whole));
  if (!off_budget(report.val_k, report.configured_k).empty())
    validation_ += fmt::format(", realised k {:.4f} (configured {:g})", report.val_k, report.configured_k);
}

void Training::sample() {
  const Part part("sampling");
  SamplingOptions options;
  options.tokens = config.train.sample_tokens;
  options.seed = uint64_t(config.seed);
  const std::vector<int32_t>& prompt = sample_prompt;
  std::vector<int32_t> ids = prompt;
  generate(*model, prompt, options, -1, [&](int32_t id) {
    ids.push_back(id);
    return true;
  });
  if (!ranks.first()) return;
  Utf8Stream whole;
  std::printf("\n--- sample after step %lld\n%s\n---\n", static_cast<long long>(state.step),
              (whole.push(corpus.tokenizer->decode(ids)) + whole.finish()).c_str());
}

void Training::save() {
  const Part part("checkpoint");
  if (directory) directory->sync_log();
  CheckpointOptions options;
  options.keep = int(config.train.keep);
  options.best = best_;
  const SavedCheckpoint saved =
      save_checkpoint(config.train.out, state.step, model_tensors(*model), optimizer_tensors(*optimizer), state.json(),
                      dump(config), options, ranks.all);
  for (const std::string& line : saved.warnings) std::fprintf(stderr, "agon: %s\n", line.c_str());
}

/// What is to be known before the first step.
void Training::print_begin() const {
  if (state.step > 0)
    std::printf("continuing %s after step %lld\n", config.train.out.c_str(), static_cast<long long>(state.step));
  for (const std::string& line : config.warnings()) std::fprintf(stderr, "agon: %s\n", line.c_str());
  if (const int64_t lost = trainer->schedule().state().lost)
    std::fprintf(stderr, "agon: %lld competition steps found no room under max_layers = %lld and are left out\n",
                 static_cast<long long>(lost), static_cast<long long>(trainer->schedule().cap()));
  std::fflush(stdout);
}

/// The peak of all ranks together, FLOP/s; 0: nobody has measured it.
double peak_of(Ranks& ranks, Device device) {
  // Nothing has measured a GPU's peak: its share of it stays 0, which is not shown.
  const Tensor peak = tensor_of<double>({device.kind == Device::cpu ? cpu::probe_peak(0.3) : 0});
  ranks.all.all_reduce(peak);
  return peak.item();
}

int Training::operator()() {
  MemoryUse lasting = lasting_memory(*model, corpus);
  lasting.optimizer = optimizer->bytes();
  show_costs(config, *model, *trainer, lasting, arguments.dry_run, ranks);
  if (arguments.dry_run) return 0;
  if (state.step >= config.train.steps) {
    if (ranks.first())
      std::printf("%s has done its %lld steps already; raise train.steps to go on\n", config.train.out.c_str(),
                  static_cast<long long>(config.train.steps));
    return 0;
  }
  if (ranks.first()) print_begin();
  const int code = loop();
  if (ranks.first()) print_end(code);
  return code;
}

int Training::loop() {
  const Signals signals;
  const double flops = account(*model).training_flops(), peak = peak_of(ranks, model->device());
  LogOptions shown = config.log;
  if (!ranks.first()) shown.format = "none";
  Progress progress(shown, config.train.steps, stdout);
  int code = 0;
  start_timing();
  while (state.step < config.train.steps && code == 0) {
    ranks.all.at_step(state.step + 1);
    StepReport report = trainer->step(state.step, arguments.overfit_one_batch ? 0 : state.step);
    ++state.step;
    report.share_of_peak = peak > 0 ? flops * double(report.tokens) / report.seconds / peak : 0;
    const StepEnd end = end_step(report);
    progress.step(report);
    if (const std::string line = slow_rank(report, ranks); ranks.first() && !line.empty())
      progress.pause(), std::fprintf(stderr, "agon: %s\n", line.c_str());
    if (end.stop) code = 128 + end.stop;
    if (last() || best_ || end.stop || end.save || due(config.train.checkpoint_every)) save();
    if (due(config.train.sample_every)) progress.pause(), sample();
  }
  return code;
}

/// Evaluates where that is due, hears what all ranks were asked to do, logs.
StepEnd Training::end_step(StepReport& report) {
  if (last() || due(config.train.eval_every)) evaluate(report);
  best_ = improved(report);
  if (best_) state.best_val_loss = report.val_loss;
  const bool asked = Signals::take_save(), requested = directory && directory->take_checkpoint_request();
  const StepEnd end = meet({Signals::stop(), asked || requested}, trainer->communication(), ranks, report);
  if (directory && (last() || report.evaluated || due(config.log.jsonl_every))) directory->log(json_line(report));
  return end;
}

void Training::print_end(int code) const {
  const Device device = model->device();
  std::fputs(time_table(stop_timing(), device).c_str(), stdout);
  std::printf("memory:     %s resident at most\n", short_bytes(double(peak_resident())).c_str());
  if (device.kind != Device::cpu)
    std::printf("            %s of %s for a step on the GPU\n", short_bytes(double(trainer->arena().extent())).c_str(),
                short_bytes(double(find_gpus().found[size_t(device.index)].memory)).c_str());
  if (!validation_.empty()) std::printf("validation: %s\n", validation_.c_str());
  std::printf("checkpoint: %s/checkpoints/step-%lld\nlog:        %s/log.jsonl\n", config.train.out.c_str(),
              static_cast<long long>(state.step), config.train.out.c_str());
  if (code)
    std::printf("stopped by a signal after step %lld; continue with --resume\n", static_cast<long long>(state.step));
}

}  // namespace

int train(const TrainArguments& arguments, Communicator& all) {
  try {
    return Training(arguments, all)();
  } catch (const std::exception& e) {
    if (!dynamic_cast<const Agreed*>(&e)) all.abort(e.what());  // the others wait for this rank
    throw;
  }
}

int train(const TrainArguments& arguments) {
  ParallelOptions parallel;
  Device device;
  try {
    const Config config = load_config(arguments.config, arguments.overrides);
    parallel = config.parallel;
    device = config.parsed_device();
  } catch (const UserError&) {  // which all ranks will hear
  }
  return run_as_rank(
      parallel, [&](Communicator& all) { return train(arguments, all); }, device);
}

}  // namespace agon
