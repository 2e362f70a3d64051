#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <iostream>

#include "apps/keys.h"
#include "apps/launch.h"
#include "apps/rank_keeper.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "distributed/who.h"

namespace {

/// `key=value` arguments after the positional ones.
CLI::Option* overrides(CLI::App* verb, std::vector<std::string>& to) {
  return verb->add_option("overrides", to, "key=value ...: configuration keys, e.g. model.layers=4");
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("agon: Mixture-of-Experts language models, from config files", "agon");
  app.set_version_flag("--version", AGON_VERSION);
  app.require_subcommand(1);
  int code = 0;

  agon::TrainArguments train;
  auto* verb = app.add_subcommand("train", "train a model; everything goes into train.out");
  verb->add_option("CONFIG", train.config, "configuration file (TOML)")->required();
  overrides(verb, train.overrides);
  verb->add_flag("--resume", train.resume, "continue the run in train.out, if there is one");
  verb->add_option("--init-from", train.init_from, "start from the weights of this checkpoint");
  verb->add_flag("--dry-run", train.dry_run, "show the model's size and memory, and train nothing");
  verb->add_flag("--overfit-one-batch", train.overfit_one_batch, "see the first batch again and again");
  verb->callback([&] { code = agon::train(train); });

  agon::EvalArguments eval;
  verb = app.add_subcommand("eval", "loss, bits per byte, perplexity, realised k, loads");
  verb->add_option("CKPT", eval.checkpoint, "a checkpoint, a run directory, or RUN/best")->required();
  overrides(verb, eval.overrides);
  verb->add_option("--data", eval.data, "evaluate on this text instead of the run's validation part");
  verb->add_flag("--noncausal", eval.noncausal, "layers that choose between tokens may see later ones, as in training");
  verb->add_option("--calibrate", eval.calibrate, "make the thresholds of such layers with this text, for this run");
  verb->add_flag("--check-leak", eval.check_leak, "change single tokens: what came before must not change");
  verb->callback([&] { code = agon::eval(eval); });

  agon::CalibrateArguments calibrate;
  verb = app.add_subcommand("calibrate", "thresholds that let layers which choose between tokens run causally");
  verb->add_option("CKPT", calibrate.checkpoint, "a checkpoint, a run directory, or RUN/best")->required();
  verb->add_option("TEXT", calibrate.text, "any text: a file, a folder, or builtin:domains")->required();
  overrides(verb, calibrate.overrides);
  verb->callback([&] { code = agon::calibrate_thresholds(calibrate); });

  agon::GenerateArguments generate;
  verb = app.add_subcommand("generate", "continue a prompt");
  verb->add_option("CKPT", generate.checkpoint, "a checkpoint, a run directory, or RUN/best")->required();
  overrides(verb, generate.overrides);
  verb->add_option("--prompt", generate.prompt, "text to continue");
  verb->add_option("--tokens", generate.sampling.tokens, "how many tokens at most")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--temperature", generate.sampling.temperature, "0: always the most likely token")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--top-k", generate.sampling.top_k, "only the k most likely; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--top-p", generate.sampling.top_p, "only the most likely with this probability together")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb->add_option("--seed", generate.sampling.seed, "of the draws")->capture_default_str();
  verb->callback([&] { code = agon::generate_text(generate); });

  std::string what;
  std::vector<std::string> info_overrides;
  verb = app.add_subcommand("info", "model, parameters, FLOPs, memory, training state");
  verb->add_option("CKPT|CONFIG", what, "a checkpoint, a run directory, or a configuration file")->required();
  overrides(verb, info_overrides);
  verb->callback([&] { code = agon::info(what, info_overrides); });

  agon::ProbeArguments probe;
  verb = app.add_subcommand("probe", "one MoE layer on tensors from a file: decisions, outputs, losses, gradients");
  verb->add_option("LAYER.toml", probe.layer, "width dtype device seed mode, [moe], [moe.router]")->required();
  verb->add_option("IN", probe.in, "safetensors: x [T, D]; if wanted, dy, sequence_lengths, weights, state")
      ->required();
  verb->add_option("OUT", probe.out, "safetensors: logits scores selected weights y loss.* grad.*")->required();
  verb->add_flag("--each-loss", probe.each_loss, "gradients of the task and of each loss by itself too");
  verb->add_flag("--expert-outputs", probe.expert_outputs, "every expert's answer to every token too");
  verb->footer("All names, shapes and an example in Python: docs/probe.md");
  verb->callback([&] { code = agon::probe(probe); });

  agon::BenchArguments bench;
  for (int i = 0; i < argc; ++i) bench.command += (i ? " " : "") + std::string(i ? argv[i] : "agon");
  verb = app.add_subcommand("bench", "times of ops, layers and training steps, beside a peak probe of the same run");
  verb->add_option("GROUP", bench.groups, "ops, layer, train; all of them where none is named")
      ->check(CLI::IsMember({"ops", "layer", "train"}));
  verb->add_option("--device", bench.device, "cpu or cuda")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  verb->add_option("--precision", bench.precision, "fp32 or bf16; bf16 on a GPU unless given, fp32 on a CPU")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  verb->add_option("--json", bench.json, "write all figures to this file");
  verb->add_option("--filter", bench.filter, "only cases whose group, name or shape contains this");
  verb->add_option("--seconds", bench.seconds, "of measuring per case; 0: 0.5 on a CPU, 1 on a GPU")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--threads", bench.threads, "0: one per core")->check(CLI::NonNegativeNumber);
  verb->add_option("--config", bench.config, "what train takes a step of")->capture_default_str();
  verb->add_option("--set", bench.overrides, "key=value of that configuration");
  verb->add_flag("--all", bench.all, "every strategy with learned and with balanced routing");
  verb->add_flag("--compare", bench.compare, "instead of ops: products beside OpenBLAS's and oneDNN's, on the CPU");
  verb->add_flag("--list", bench.list, "show the cases, and measure none");
  verb->add_flag("--tiny", bench.tiny, "sizes that take no time: whether the cases run at all");
  verb->footer("What is counted, and the JSON: docs/bench.md");
  verb->callback([&] { code = agon::bench(bench); });

  std::string section;
  verb = app.add_subcommand("keys", "every configuration key: type, default, range, meaning");
  verb->add_option("SECTION", section, "only this section, e.g. moe.router");
  verb->callback([&] { agon::print_keys(std::cout, section); });

  agon::PlanArguments plan;
  verb = app.add_subcommand("plan", "memory and bytes moved of every layout of a job of several ranks, before it runs");
  verb->add_option("CONFIG", plan.config, "configuration file (TOML)")->required();
  overrides(verb, plan.overrides);
  verb->add_option("--ranks", plan.ranks, "of the job")->required()->check(CLI::Range(1, 65536));
  verb->add_option("--memory", plan.memory_gib, "GiB that a rank may take: layouts that need more are marked")
      ->check(CLI::PositiveNumber);
  verb->add_option("--json", plan.json, "write all figures to this file");
  verb->footer(
      "Builds one rank of each layout here, without the others, and takes a step with it: give it the memory of one\n"
      "rank. Step times are not predicted: that is for a cost model that measurements on 1, 2 and 4 ranks bear out.");
  verb->callback([&] { code = agon::plan(plan); });

  agon::LaunchArguments launch;
  verb = app.add_subcommand("launch", "several ranks of another verb on this machine, supervised");
  verb->add_option("-n,--ranks", launch.ranks, "how many")->required()->check(CLI::Range(1, 1024));
  verb->add_option("--max-restarts", launch.max_restarts, "after failures; train goes on from its last checkpoint")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--grace", launch.grace, "seconds that ranks have to save after SIGINT or SIGTERM")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->prefix_command();
  verb->footer("Behind the options: the verb and its arguments, e.g. agon launch -n 2 train CONFIG parallel.expert=2");
  verb->callback([&, verb] {
    launch.words = verb->remaining();
    code = agon::launch(launch);
  });

  // What mpirun starts for `launch`: one rank, and who stays beside it.
  verb = app.add_subcommand("keep-rank", "")->group("");
  verb->prefix_command();
  verb->callback([&, verb] {
    std::vector<std::string> words = verb->remaining();
    agon::require(words.size() >= 2, "agon keep-rank: expected the supervisor's socket and a command");
    const std::string socket = words[0];
    words.erase(words.begin());
    code = agon::keep_rank(socket, agon::who_am_i().rank, words);
  });

  verb = app.add_subcommand("doctor", "what this build and machine have");
  verb->callback([&] { code = agon::doctor(); });

  verb = app.add_subcommand("help", "this table");
  const std::string table = app.help();  // while parsing, `app` would answer with the help of the verb in hand
  verb->callback([&] { std::fputs(table.c_str(), stdout); });

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) { return app.exit(e) == 0 ? 0 : 2; }
  return code;
} catch (const agon::Error& e) {
  std::fflush(stdout);
  std::fprintf(stderr, "agon: %s\n", e.what());
  return e.exit_code();
} catch (const std::exception& e) {
  std::fflush(stdout);
  std::fprintf(stderr, "agon: %s\n", e.what());
  return 1;
}
