#include "apps/run.h"

#include <fmt/format.h>
#include <malloc.h>

#include <cstdio>
#include <filesystem>

#include "apps/causal.h"
#include "apps/config_compare.h"
#include "apps/config_dump.h"
#include "apps/config_file.h"
#include "apps/config_saved.h"
#include "apps/costs.h"
#include "core/gpu.h"
#include "core/parallel.h"
#include "distributed/together.h"

namespace agon {

namespace {

/// The configuration, which all ranks must have alike.
Config load_for(const TrainArguments& arguments, Communicator& all) {
  Config config;
  together(all, [&] {
    config = load_config(arguments.config, arguments.overrides);
    require(!arguments.overfit_one_batch || !arguments.resume,
            "--overfit-one-batch cannot be combined with --resume: the run would go on with other data");
    require(config.train.sample_every == 0 || noncausal_layers(config).empty(), config.named("train.sample_every"),
            ": a layer's scores depend on later tokens, so this model cannot generate; expected 0");
    config.use_device();
  });
  std::map<std::string, std::string> shared = shared_by_ranks(config);
  const auto given = [](bool flag) { return flag ? "given" : "not given"; };
  shared["agon --version"] = AGON_VERSION;
  shared["--resume"] = given(arguments.resume);
  shared["--dry-run"] = given(arguments.dry_run);
  shared["--overfit-one-batch"] = given(arguments.overfit_one_batch);
  shared["--init-from"] = given(!arguments.init_from.empty());
  require_same(all, shared);
  return config;
}

}  // namespace

Run::Run(const TrainArguments& given, Communicator& all)
    : arguments(given), config(load_for(given, all)), ranks(config, all) {
  set_threads(int(config.threads));
  // Large blocks go back to the system when freed, so that the high-water mark is what is live, not what once was.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  std::optional<Checkpoint> checkpoint, start;
  if (!arguments.dry_run) checkpoint = continue_from();
  if (!arguments.init_from.empty() && !checkpoint) start = open_checkpoint(arguments.init_from, all);
  together(all, [&] { load_corpus_of(checkpoint, start); });
  require_same(all,
               {{"content of the text", fmt::format("{:016x}", state.fingerprint)}, {"tokenizer", state.tokenizer}});
  together(all, [&] { make_parts(); });
  together(all, [&] {
    if (checkpoint) {
      load_model(*checkpoint, *model);
      trainer->restore(state.schedule, checkpoint->path());
    } else if (start) {
      const Config before = saved_config(start->config(), start->path() + " (its configuration)");
      load_model(*start, *model, &before);
    }
  });
  if (checkpoint) checkpoint->load_optimizer(optimizer_tensors(*optimizer), all);
  state.schedule = trainer->schedule().state();
  first_alone(all, [&] {
    if (!directory) return;
    directory->write_config(dump(config));
    directory->open_log(state.step);
  });
}

void Run::load_corpus_of(const std::optional<Checkpoint>& checkpoint, const std::optional<Checkpoint>& start) {
  std::shared_ptr<const Tokenizer> tokenizer;
  if (checkpoint) {
    tokenizer = tokenizer_from_json(state.tokenizer, checkpoint->path());
  } else if (start) {  // its tokens mean what they meant there
    tokenizer = tokenizer_from_json(TrainingState::from_json(start->state(), start->path()).tokenizer, start->path());
  }
  corpus = load_corpus(config.data, tokenizer);
  require(!checkpoint || corpus.fingerprint == state.fingerprint, config.train.out,
          ": the text is not the one this run began with (", config.data.train,
          "); its content has to agree on resume, its path may differ");
  state.fingerprint = corpus.fingerprint;
  state.tokenizer = corpus.tokenizer->json();
}

void Run::make_parts() {
  const Device device = config.use_device();
  model.emplace(config, corpus.tokenizer->vocabulary(), *ranks.experts.group);
  if (device.kind != Device::cpu) {
    MemoryUse use = lasting_memory(*model, corpus);
    use.optimizer = 2 * use.gradients / (config.parallel.shard_optimizer ? ranks.size() : 1);
    require_room(use, free_memory(device), device);
  }
  move_to(*model, device);
  optimizer.emplace(parameters(*model), config.optimizer, config.parallel, ranks);
  data.emplace(corpus, config.data, config.model.sequence, config.train.batch, uint64_t(config.seed));
  if (!corpus.valid.id.empty())
    valid.emplace(corpus.valid, *corpus.tokenizer, config.data, config.model.sequence, config.train.eval_tokens);
  trainer.emplace(config, *model, *optimizer, *data, ranks);
  sample_prompt = corpus.tokenizer->encode(config.train.sample_prompt, "train.sample_prompt");
  if (sample_prompt.empty()) {
    const int32_t end = corpus.tokenizer->end_of_document();
    sample_prompt.push_back(end >= 0 ? end : corpus.train.id.front());
  }
}

/// Throws UserError listing what in our configuration disagrees with that of the run we continue.
void Run::refuse_other(const Config& before) const {
  std::string list;
  for (const std::string& d : differences(before, config, free_on_resume())) list += "\n  " + d;
  require(list.empty(), config.train.out,
          ": the configuration disagrees with the run it continues (run -> now):", list);
}

/// Opens the run directory and, on resume, its newest valid checkpoint, whose configuration has to agree with ours.
std::optional<Checkpoint> Run::continue_from() {
  bool existed = false;
  first_alone(ranks.all, [&] {
    directory.emplace(RunDirectory::open(config.train.out, arguments.resume));
    existed = directory->existed();
  });
  if (text_of_first(ranks.all, existed ? "existed" : "").empty()) return {};
  FoundCheckpoint found = find_latest_valid(config.train.out, ranks.all);
  if (ranks.first())
    for (const std::string& line : found.skipped)
      std::fprintf(stderr, "agon: passed over a damaged checkpoint: %s\n", line.c_str());
  together(ranks.all, [&] {
    if (found.checkpoint) {
      const std::string& path = found.checkpoint->path();
      refuse_other(parse_config(found.checkpoint->config(), path + " (its configuration)"));
      state = TrainingState::from_json(found.checkpoint->state(), path);
      return;
    }
    require(found.skipped.empty(), config.train.out,
            ": none of the run's checkpoints can be read; nothing was changed. Repair or remove them to begin anew");
    const std::string path = config.train.out + "/config.toml";
    if (ranks.first() && std::filesystem::exists(path)) refuse_other(load_config(path));
  });
  return std::move(found.checkpoint);
}

}  // namespace agon
