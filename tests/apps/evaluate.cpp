#include "apps/evaluate.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/apps/tiny_run.h"
#include "tests/support/cuda.h"

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
