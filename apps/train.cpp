#include <fmt/format.h>
#include <malloc.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "apps/account.h"
#include "apps/causal.h"
#include "apps/config_compare.h"
#include "apps/config_dump.h"
#include "apps/config_file.h"
#include "apps/config_saved.h"
#include "apps/evaluate.h"
#include "apps/report_tables.h"
#include "apps/run_directory.h"
#include "apps/signals.h"
#include "apps/trainer.h"
#include "apps/training_state.h"
#include "apps/utf8.h"
#include "apps/verbs.h"
#include "core/gpu.h"
#include "core/parallel.h"
#include "core/profile.h"
#include "ops/cpu/peak.h"

namespace agon {

namespace {

/// Everything a run holds, from the config to the last checkpoint.
class Run {
 public:
  Run(const TrainArguments& arguments, Communicator& comm);
  int operator()();
  void print_costs();

 private:
  MemoryUse lasting();
  std::optional<Checkpoint> continue_from();
  void refuse_other(const Config& before) const;
  void evaluate(StepReport& report);
  void sample();
  void save();
  bool improved(const StepReport& report) const {
    return report.evaluated && std::isfinite(report.val_loss) &&
           (state_.best_val_loss < 0 || report.val_loss < state_.best_val_loss);
  }

  TrainArguments arguments_;
  Config config_;
  Ranks ranks_;
  Device device_;
  std::optional<RunDirectory> directory_;
  TrainingState state_;
  Corpus corpus_;
  std::optional<LanguageModel> model_;
  std::optional<Optimizer> optimizer_;
  std::optional<TrainingData> data_;
  std::optional<EvaluationData> valid_;
  std::optional<Trainer> trainer_;
  std::vector<int32_t> sample_prompt_;
  std::string validation_;  // the last evaluation, for the report at the end
  bool best_ = false;       // the state that would be saved now is the best so far
};

Run::Run(const TrainArguments& arguments, Communicator& comm)
    : arguments_(arguments), config_(load_config(arguments.config, arguments.overrides)), ranks_(config_, comm) {
  require(!arguments_.overfit_one_batch || !arguments_.resume,
          "--overfit-one-batch cannot be combined with --resume: the run would go on with other data");
  require(config_.train.sample_every == 0 || noncausal_layers(config_).empty(), config_.named("train.sample_every"),
          ": a layer's scores depend on later tokens, so this model cannot generate; expected 0");
  device_ = config_.use_device();
  set_threads(int(config_.threads));
  // Large blocks go back to the system when freed, so that the high-water mark is what is live, not what once was.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);

  std::optional<Checkpoint> checkpoint;
  std::shared_ptr<const Tokenizer> tokenizer;
  if (!arguments_.dry_run) checkpoint = continue_from();
  if (checkpoint) tokenizer = tokenizer_from_json(state_.tokenizer, checkpoint->path());
  std::optional<Checkpoint> start;
  if (!arguments_.init_from.empty() && !checkpoint) {
    start = open_checkpoint(arguments_.init_from);
    // Its tokens mean what they meant there.
    tokenizer = tokenizer_from_json(TrainingState::from_json(start->state(), start->path()).tokenizer, start->path());
  }
  corpus_ = load_corpus(config_.data, tokenizer);
  require(!checkpoint || corpus_.fingerprint == state_.fingerprint, config_.train.out,
          ": the text is not the one this run began with (", config_.data.train,
          "); its content has to agree on resume, its path may differ");
  state_.fingerprint = corpus_.fingerprint;
  state_.tokenizer = corpus_.tokenizer->json();

  model_.emplace(config_, corpus_.tokenizer->vocabulary(), *ranks_.experts.group);
  if (device_.kind != Device::cpu) require_room(lasting(), free_memory(device_), device_);
  move_to(*model_, device_);
  optimizer_.emplace(parameters(*model_), config_.optimizer, config_.parallel, ranks_);
  data_.emplace(corpus_, config_.data, config_.model.sequence, config_.train.batch, uint64_t(config_.seed));
  if (!corpus_.valid.id.empty())
    valid_.emplace(corpus_.valid, *corpus_.tokenizer, config_.data, config_.model.sequence, config_.train.eval_tokens);
  trainer_.emplace(config_, *model_, *optimizer_, *data_, ranks_);
  if (checkpoint) {
    load_model(*checkpoint, *model_);
    checkpoint->load_optimizer(optimizer_tensors(*optimizer_));
    trainer_->restore(state_.schedule, checkpoint->path());
  } else if (start) {
    const Config before = saved_config(start->config(), start->path() + " (its configuration)");
    load_model(*start, *model_, &before);
  }
  state_.schedule = trainer_->schedule().state();
  sample_prompt_ = corpus_.tokenizer->encode(config_.train.sample_prompt, "train.sample_prompt");
  if (sample_prompt_.empty()) {
    const int32_t end = corpus_.tokenizer->end_of_document();
    sample_prompt_.push_back(end >= 0 ? end : corpus_.train.id.front());
  }
  if (directory_) {
    directory_->write_config(dump(config_));
    directory_->open_log(state_.step);
  }
}

/// Throws UserError listing what in our configuration disagrees with that of the run we continue.
void Run::refuse_other(const Config& before) const {
  std::string list;
  for (const std::string& d : differences(before, config_, free_on_resume())) list += "\n  " + d;
  require(list.empty(), config_.train.out,
          ": the configuration disagrees with the run it continues (run -> now):", list);
}

/// Opens the run directory and, on resume, its newest valid checkpoint, whose configuration has to agree with ours.
std::optional<Checkpoint> Run::continue_from() {
  directory_.emplace(RunDirectory::open(config_.train.out, arguments_.resume));
  if (!directory_->existed()) return {};
  FoundCheckpoint found = find_latest_valid(config_.train.out);
  for (const std::string& line : found.skipped)
    std::fprintf(stderr, "agon: passed over a damaged checkpoint: %s\n", line.c_str());
  if (!found.checkpoint) {
    require(found.skipped.empty(), config_.train.out,
            ": none of the run's checkpoints can be read; nothing was changed. Repair or remove them to begin anew");
    const std::string path = config_.train.out + "/config.toml";
    if (std::filesystem::exists(path)) refuse_other(load_config(path));
    return {};
  }
  refuse_other(parse_config(found.checkpoint->config(), found.checkpoint->path() + " (its configuration)"));
  state_ = TrainingState::from_json(found.checkpoint->state(), found.checkpoint->path());
  return std::move(found.checkpoint);
}

/// What is there before and after every step.
MemoryUse Run::lasting() {
  const Account a = account(*model_);
  MemoryUse use;
  use.parameters = a.value_bytes;
  use.gradients = a.gradient_bytes;
  use.optimizer = 2 * a.gradient_bytes;  // two moments in the dtype of gradients
  if (device_.kind == Device::cpu) use.text = int64_t(corpus_.train.id.size() + corpus_.valid.id.size()) * 4;
  return use;
}

void Run::print_costs() {
  const Account a = account(*model_);
  std::fputs(describe(config_, a, model_->vocabulary()).c_str(), stdout);
  const int64_t micro = config_.train.micro_batch ? config_.train.micro_batch : config_.train.batch;
  MemoryUse use = lasting();
  const bool gpu = device_.kind != Device::cpu;
  const int64_t there = gpu ? use.total() : 0;  // what of it is in place
  // Two sizes give what a sequence takes; a micro-batch too small for the second is never exceeded.
  const int64_t unit = config_.routing_group();
  int64_t one = 0, two = 0;
  try {
    one = int64_t(trainer_->measure(unit));
    two = micro >= 2 * unit ? int64_t(trainer_->measure(2 * unit)) : 2 * one;
  } catch (const OutOfMemory& e) { require_room(use, free_memory(device_) + there, device_, e.what()); }
  const int64_t each = (two - one) / unit, fixed = 2 * one - two;
  // A GPU may not hold what is to be found too large.
  const bool exactly = arguments_.dry_run && micro > 2 * unit && !gpu;
  use.arena = exactly ? int64_t(trainer_->measure(micro)) : fixed + each * micro;
  malloc_trim(0);
  const int64_t available = gpu ? free_memory(device_) : available_memory();
  if (arguments_.dry_run) {
    std::fputs(memory_table(use, fixed, each, available).c_str(), stdout);
    return;
  }
  require_room(use, available + there, device_);
  std::printf("memory: about %s; largest micro-batch that fits: %lld sequences (--dry-run shows the table)\n",
              short_bytes(double(use.total())).c_str(),
              static_cast<long long>(std::max<int64_t>(0, (available - fixed) / std::max<int64_t>(1, each))));
}

void Run::evaluate(StepReport& report) {
  if (!valid_) return;
  const int64_t batch = evaluation_batch(config_);
  // What can never be causal is not refused its training: its validation says what it is.
  const Mode mode = noncausal_layers(config_).empty() ? Mode::eval : Mode::eval_noncausal;
  const Evaluation e = agon::evaluate(*model_, *valid_, batch, mode, trainer_->arena());
  report.evaluated = true;
  report.val_loss = e.loss;
  report.val_bpb = e.bits_per_byte;
  report.val_causal = mode == Mode::eval;
  report.val_k = e.experts_per_token;
  report.configured_k = budget_of(config_);
  validation_ = fmt::format("{:.4f} nats per token, perplexity {:.4f} ({})", e.loss, e.perplexity,
                            scope_in_words(*model_, mode, batch));
  if (!off_budget(report.val_k, report.configured_k).empty())
    validation_ += fmt::format(", realised k {:.4f} (configured {:g})", report.val_k, report.configured_k);
}

void Run::sample() {
  const Part part("sampling");
  SamplingOptions options;
  options.tokens = config_.train.sample_tokens;
  options.seed = uint64_t(config_.seed);
  const std::vector<int32_t>& prompt = sample_prompt_;
  std::vector<int32_t> ids = prompt;
  generate(*model_, prompt, options, -1, [&](int32_t id) {
    ids.push_back(id);
    return true;
  });
  Utf8Stream whole;
  std::printf("\n--- sample after step %lld\n%s\n---\n", static_cast<long long>(state_.step),
              (whole.push(corpus_.tokenizer->decode(ids)) + whole.finish()).c_str());
}

void Run::save() {
  const Part part("checkpoint");
  directory_->sync_log();
  CheckpointOptions options;
  options.keep = int(config_.train.keep);
  options.best = best_;
  const SavedCheckpoint saved = save_checkpoint(config_.train.out, state_.step, model_tensors(*model_),
                                                optimizer_tensors(*optimizer_), state_.json(), dump(config_), options);
  for (const std::string& line : saved.warnings) std::fprintf(stderr, "agon: %s\n", line.c_str());
}

int Run::operator()() {
  print_costs();
  if (arguments_.dry_run) return 0;
  if (state_.step >= config_.train.steps) {
    std::printf("%s has done its %lld steps already; raise train.steps to go on\n", config_.train.out.c_str(),
                static_cast<long long>(config_.train.steps));
    return 0;
  }
  if (state_.step > 0)
    std::printf("continuing %s after step %lld\n", config_.train.out.c_str(), static_cast<long long>(state_.step));
  for (const std::string& line : config_.warnings()) std::fprintf(stderr, "agon: %s\n", line.c_str());
  if (const int64_t lost = trainer_->schedule().state().lost)
    std::fprintf(stderr, "agon: %lld competition steps found no room under max_layers = %lld and are left out\n",
                 static_cast<long long>(lost), static_cast<long long>(trainer_->schedule().cap()));
  const Signals signals;
  // Nothing has measured a GPU's peak: its share of it stays 0, which is not shown.
  const double flops = account(*model_).training_flops(), peak = device_.kind == Device::cpu ? cpu::probe_peak(0.3) : 0;
  std::fflush(stdout);
  int code = 0;
  start_timing();
  {
    Progress progress(config_.log, config_.train.steps, stdout);
    while (state_.step < config_.train.steps && code == 0) {
      StepReport report = trainer_->step(state_.step, arguments_.overfit_one_batch ? 0 : state_.step);
      ++state_.step;
      const bool last = state_.step == config_.train.steps;
      const auto due = [&](int64_t every) { return every > 0 && state_.step % every == 0; };
      report.share_of_peak = peak > 0 ? flops * double(report.tokens) / report.seconds / peak : 0;
      if (last || due(config_.train.eval_every)) evaluate(report);
      best_ = improved(report);
      if (best_) state_.best_val_loss = report.val_loss;
      if (last || report.evaluated || due(config_.log.jsonl_every)) directory_->log(json_line(report));
      progress.step(report);
      if (const int signal = Signals::stop()) code = 128 + signal;
      const bool asked = Signals::take_save(), requested = directory_->take_checkpoint_request();
      if (last || best_ || code || asked || requested || due(config_.train.checkpoint_every)) save();
      if (due(config_.train.sample_every)) progress.pause(), sample();
    }
  }
  std::fputs(time_table(stop_timing(), device_).c_str(), stdout);
  std::printf("memory:     %s resident at most\n", short_bytes(double(peak_resident())).c_str());
  if (device_.kind != Device::cpu)
    std::printf("            %s of %s for a step on the GPU\n", short_bytes(double(trainer_->arena().extent())).c_str(),
                short_bytes(double(find_gpus().found[size_t(device_.index)].memory)).c_str());
  if (!validation_.empty()) std::printf("validation: %s\n", validation_.c_str());
  std::printf("checkpoint: %s/checkpoints/step-%lld\nlog:        %s/log.jsonl\n", config_.train.out.c_str(),
              static_cast<long long>(state_.step), config_.train.out.c_str());
  if (code)
    std::printf("stopped by a signal after step %lld; continue with --resume\n", static_cast<long long>(state_.step));
  return code;
}

}  // namespace

int train(const TrainArguments& arguments) {
  const auto comm = make_self_communicator();
  return Run(arguments, *comm)();
}

}  // namespace agon
