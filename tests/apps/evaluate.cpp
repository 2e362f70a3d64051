#include "apps/evaluate.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/apps/tiny_run.h"
#include "tests/support/cuda.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("evaluate: every target once, whatever the batch, and the loss of the head") {
  Tiny tiny;
  const EvaluationData data(tiny.corpus.valid, *tiny.corpus.tokenizer, tiny.config.data, 16);
  Step arena;
  const Evaluation one = evaluate(tiny.model, data, 1, Mode::eval, arena, *tiny.comm),
                   many = evaluate(tiny.model, data, 7, Mode::eval, arena, *tiny.comm);
  CHECK(one.tokens == int64_t(tiny.corpus.valid.id.size()) - 1);
  CHECK(one.tokens == many.tokens);
  CHECK(one.loss == doctest::Approx(many.loss).epsilon(1e-12));
  CHECK(one.loss == doctest::Approx(5.55).epsilon(0.02));
  CHECK(one.bits_per_byte == doctest::Approx(one.loss * double(one.tokens) / double(one.bytes) / std::log(2.0)));
  CHECK(one.experts_per_token == 2);
  CHECK(one.load == many.load);
}

TEST_CASE("evaluate: on many ranks the figures of one, where windows do not divide over them too") {
  for (const char* router : {kTinyRouter, "[moe.router]\nstrategy = 'expert_choice'\ngroup = 1\nk = 1.5"}) {
    const auto evaluated = [&](Communicator& all, const char* expert, int64_t limit) {
      const Config config = parse_config(std::string(kTiny) + router, "tiny",
                                         std::vector<std::string>{"precision=f64", text("parallel.expert=", expert)});
      const Ranks ranks(config, all);
      const Corpus corpus = load_corpus(config.data);
      LanguageModel model(config, corpus.tokenizer->vocabulary(), *ranks.experts.group);
      const EvaluationData data(corpus.valid, *corpus.tokenizer, config.data, 16, limit);
      Step arena;
      return evaluate(model, data, 2, std::string(router) == kTinyRouter ? Mode::eval : Mode::eval_noncausal, arena,
                      all);
    };
    for (const int64_t limit : {int64_t(10), int64_t(200), int64_t(0)}) {
      const Evaluation one = evaluated(*make_self_communicator(), "1", limit);
      for (const char* expert : {"1", "2", "4"})
        run_on_threads(4, [&](Communicator& all) {
          const Evaluation many = evaluated(all, expert, limit);
          CHECK(many.loss == doctest::Approx(one.loss).epsilon(1e-13));
          CHECK(many.tokens == one.tokens);
          CHECK(many.bytes == one.bytes);
          CHECK(many.load == one.load);
          CHECK(many.experts_per_token == one.experts_per_token);
        });
    }
  }
}

GPU_CASE("evaluate: on a GPU as on the CPU") {
  Tiny here, there({"device=cuda"});
  const auto evaluated = [](Tiny& tiny) {
    const EvaluationData data(tiny.corpus.valid, *tiny.corpus.tokenizer, tiny.config.data, 16, 150);
    Step arena(tiny.model.device());
    return evaluate(tiny.model, data, 4, Mode::eval, arena, *tiny.comm);
  };
  const Evaluation a = evaluated(there), b = evaluated(here);
  CHECK(a.loss == doctest::Approx(b.loss).epsilon(1e-4));
  CHECK(a.tokens == b.tokens);
  CHECK(a.bytes == b.bytes);
  CHECK(a.load == b.load);
}
