#include "apps/evaluate.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/apps/tiny_run.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("evaluate: every target once, whatever the batch, and the loss of the head") {
  Tiny tiny;
  const EvaluationData data(tiny.corpus.valid, *tiny.corpus.tokenizer, tiny.config.data, 16);
  Step arena;
  const Evaluation one = evaluate(tiny.model, data, 1, Mode::eval, arena),
                   many = evaluate(tiny.model, data, 7, Mode::eval, arena);
  CHECK(one.tokens == int64_t(tiny.corpus.valid.id.size()) - 1);
  CHECK(one.tokens == many.tokens);
  CHECK(one.loss == doctest::Approx(many.loss).epsilon(1e-12));
  CHECK(one.loss == doctest::Approx(5.55).epsilon(0.02));
  CHECK(one.bits_per_byte == doctest::Approx(one.loss * double(one.tokens) / double(one.bytes) / std::log(2.0)));
  CHECK(one.experts_per_token == 2);
  CHECK(one.load == many.load);
}
