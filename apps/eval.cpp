#include <cstdio>
#include <optional>

#include "apps/causal.h"
#include "apps/evaluate.h"
#include "apps/leak.h"
#include "apps/log.h"
#include "apps/verbs.h"

namespace agon {

namespace {

void print_loads(const Evaluation& e, const ThresholdSources& sources, LanguageModel& model) {
  const Config& c = model.config();
  const Layers layers = thresholded_layers(model);
  std::printf("realised k     %.4f experts per token (configured %g)\n", e.experts_per_token, budget_of(c));
  for (size_t i = 0; i < e.load.size(); ++i)
    if (layers.contains(e.block[i]))
      std::printf("realised k %-3lld %.4f of %g\n", static_cast<long long>(e.block[i]), e.experts_per_token_of(i),
                  c.moe.router_of(e.block[i]).options->experts_per_token());
  std::fputs(thresholds_in_words(sources).c_str(), stdout);
  std::printf("load max/mean  %.3f\n", load_ratio(e.load));
  for (size_t i = 0; i < e.load.size(); ++i) {
    double sum = 0;
    for (double n : e.load[i]) sum += n;
    std::printf("load %-10lld", static_cast<long long>(e.block[i]));
    for (double n : e.load[i]) std::printf(" %5.1f%%", sum > 0 ? 100 * n / sum : 0.0);
    std::printf("\n");
  }
}

void print_leak(const Leak& leak, Mode mode) {
  std::printf(
      "leak           earlier positions %.6g, other sequences %.6g (largest change before the head, %lld tokens "
      "changed one at a time; from the changed one on %.6g)\n",
      leak.earlier, leak.others, static_cast<long long>(leak.changes), leak.later);
  if (mode == Mode::eval_noncausal || (leak.earlier == 0 && leak.others == 0)) return;
  throw Error(text("the model is not causal: after changing one token, earlier positions differ by up to ",
                   leak.earlier, " and other sequences by up to ", leak.others, ", expected 0 and 0"));
}

}  // namespace

int eval(const EvalArguments& arguments) {
  require(!arguments.noncausal || arguments.calibrate.empty(),
          "--calibrate makes thresholds, which --noncausal does not use: name one of them");
  const auto comm = make_self_communicator();
  LoadedModel loaded = open_model(arguments.checkpoint, arguments.overrides, *comm);
  const Config& c = loaded.config;
  const Mode mode = arguments.noncausal ? Mode::eval_noncausal : Mode::eval;
  const int64_t batch = evaluation_batch(c);
  Step arena(loaded.model->device());
  ThresholdSources sources;
  if (mode == Mode::eval) {
    std::optional<Calibration> made;
    if (!arguments.calibrate.empty()) made = calibrate_with(loaded, arguments.calibrate, arena);
    sources = settle_thresholds(loaded, made, arguments.overrides, true);
  }
  Tokens tokens;
  if (!arguments.data.empty()) {
    tokens = load_tokens(arguments.data, c.data, *loaded.tokenizer);
  } else {
    Corpus corpus = load_corpus(c.data, loaded.tokenizer);
    require(!corpus.valid.id.empty(), c.data.train,
            ": the run has no validation part (data.valid_share = 0); name a text with --data");
    tokens = std::move(corpus.valid);
  }
  const EvaluationData data(tokens, *loaded.tokenizer, c.data, c.model.sequence,
                            arguments.data.empty() ? c.train.eval_tokens : 0);
  const Evaluation e = evaluate(*loaded.model, data, batch, mode, arena, *comm);
  std::printf("checkpoint     %s\ntext           %s\ntokens         %lld\nbytes          %lld\n", loaded.path.c_str(),
              tokens.source.c_str(), static_cast<long long>(e.tokens), static_cast<long long>(e.bytes));
  std::printf("loss           %.6f nats per token\nbits per byte  %.6f\nperplexity     %.4f (%s)\n", e.loss,
              e.bits_per_byte, e.perplexity, scope_in_words(*loaded.model, mode, batch).c_str());
  if (!e.load.empty()) print_loads(e, sources, *loaded.model);
  if (arguments.check_leak) print_leak(measure_leak(*loaded.model, data, batch, mode, arena), mode);
  return 0;
}

}  // namespace agon
