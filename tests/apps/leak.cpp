#include "apps/leak.h"

#include <doctest/doctest.h>

#include "tests/apps/threshold_toy.h"
#include "tests/apps/tiny_run.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr const char* kConfig = R"(
threads = 1
[data]
builtin_bytes = 60000
[model]
layers = 2
width = 16
heads = 2
sequence = 16
[moe]
experts = 4
expert_width = 12
[train]
batch = 4
[moe.router]
)";

Leak leak_of(const std::string& router, Mode mode, int64_t batch = 4, const std::vector<std::string>& overrides = {}) {
  const PoolToys toys;
  const Config config = parse_config(kConfig + router, "test", overrides);
  const auto comm = make_self_communicator();
  const Corpus corpus = load_corpus(config.data);
  LanguageModel model(config, corpus.tokenizer->vocabulary(), *comm);
  each_state(model, [](const std::string& path, Tensor& t) {
    if (path.ends_with(".threshold")) fill(t, 0.3);
  });
  const EvaluationData data(corpus.valid, *corpus.tokenizer, config.data, config.model.sequence);
  Step arena(placed(model).device());
  return measure_leak(model, data, batch, mode, arena);
}

}  // namespace

TEST_CASE("leak: exactly none where tokens are routed alone or by thresholds") {
  for (const char* router : {"strategy = \"token_choice\"", "strategy = \"toy_pool\"", "strategy = \"toy_columns\""}) {
    CAPTURE(std::string(router));
    for (const char* precision : {"precision=fp32", "precision=bf16", "precision=f64"}) {
      CAPTURE(std::string(precision));
      for (const int64_t batch : {1, 4, 7}) {
        const Leak leak = leak_of(router, Mode::eval, batch, {precision});
        CHECK(leak.earlier == 0);
        CHECK(leak.others == 0);
        CHECK(leak.later > 0);
        CHECK(leak.changes == 12);
      }
    }
  }
}

TEST_CASE("leak: seen where a choice is made between tokens, or weights know of later ones") {
  const Leak pool = leak_of("strategy = \"toy_pool\"", Mode::eval_noncausal);
  CHECK(pool.earlier > 0);
  CHECK(pool.others > 0);
  const Leak alone = leak_of("strategy = \"toy_pool\"", Mode::eval_noncausal, 1);
  CHECK(alone.earlier > 0);
  CHECK(alone.others == 0);
  const Leak cheat = leak_of("strategy = \"toy_pool\"\nleaks = true", Mode::eval);
  CHECK((cheat.earlier > 0 || cheat.others > 0));
}

TEST_CASE("leak: documents of a window are sequences of their own, and one token is enough") {
  const Leak masked = leak_of("", Mode::eval, 4, {"data.mask_documents=true"});
  CHECK(masked.earlier == 0);
  CHECK(masked.others == 0);
  CHECK(masked.later > 0);
  const Leak single = leak_of("", Mode::eval, 3, {"model.sequence=1"});
  CHECK(single.later > 0);
  CHECK(single.others == 0);
}

GPU_CASE("leak: none on a GPU either, and a change is seen") {
  const Leak leak = leak_of("strategy = \"unified\"", Mode::eval, 2, {"device=cuda"});
  CHECK(leak.earlier == 0);
  CHECK(leak.others == 0);
  CHECK(leak.later > 0);
  CHECK(leak_of("strategy = \"expert_choice\"", Mode::eval_noncausal, 2, {"device=cuda"}).others > 0);
}
