#include <cstdio>

#include "apps/evaluate.h"
#include "apps/log.h"
#include "apps/training_state.h"
#include "apps/verbs.h"

namespace agon {

int eval(const EvalArguments& arguments) {
  const auto comm = make_self_communicator();
  const LoadedModel loaded = open_model(arguments.checkpoint, arguments.overrides, *comm);
  const Config& c = loaded.config;
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
  Step arena;
  const Evaluation e =
      evaluate(*loaded.model, data, c.train.micro_batch ? c.train.micro_batch : c.train.batch, Mode::eval, arena);
  std::printf("checkpoint     %s\ntext           %s\ntokens         %lld\nbytes          %lld\n", loaded.path.c_str(),
              tokens.source.c_str(), static_cast<long long>(e.tokens), static_cast<long long>(e.bytes));
  std::printf("loss           %.6f nats per token\nbits per byte  %.6f\nperplexity     %.4f (causal, context %lld)\n",
              e.loss, e.bits_per_byte, e.perplexity, static_cast<long long>(c.model.sequence));
  if (e.load.empty()) return 0;
  std::printf("realised k     %.4f experts per token\nload max/mean  %.3f\n", e.experts_per_token, load_ratio(e.load));
  for (size_t layer = 0; layer < e.load.size(); ++layer) {
    double sum = 0;
    for (double n : e.load[layer]) sum += n;
    std::printf("load %-10zu", layer);
    for (double n : e.load[layer]) std::printf(" %5.1f%%", sum > 0 ? 100 * n / sum : 0.0);
    std::printf("\n");
  }
  return 0;
}

}  // namespace agon
