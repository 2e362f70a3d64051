#include "moe/unified_scores.h"

#include <doctest/doctest.h>

#include <cmath>

#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/moe/support.h"

using namespace agon;
using namespace agon::testing;

namespace {

Scopes two_scopes(int64_t T) {
  RouterContext c;
  c.sequence_offsets = tensor_of<int32_t>({0, int32_t(T / 3), int32_t(T)});
  return make_scopes(c, T, 0, "sequence");
}

}  // namespace

TEST_CASE("unified_scores: the formula, entry by entry") {
  const int64_t T = 9, E = 4;
  const Tensor z = random({T, E}, 2);
  const Scopes scopes = two_scopes(T);
  const auto at = [&](int64_t t, int64_t e) { return std::exp(z.data<double>()[t * E + e]); };
  for (double alpha : {0.0, 0.3, 1.0})
    for (const ExpertScore view : {ExpertScore::sigmoid, ExpertScore::softmax}) {
      const Tensor w = unified_scores(z, alpha, view, scopes);
      for (int64_t t = 0; t < T; ++t) {
        const int64_t first = t < 3 ? 0 : 3, last = t < 3 ? 3 : T;
        double row = 0;
        for (int64_t e = 0; e < E; ++e) row += at(t, e);
        for (int64_t e = 0; e < E; ++e) {
          double column = 0;
          for (int64_t s = first; s < last; ++s) column += at(s, e);
          const double g = view == ExpertScore::sigmoid ? 2 / (1 + 1 / at(t, e)) / double(E)
                                                        : at(t, e) / column * double(last - first) / double(E);
          CHECK(w.data<double>()[t * E + e] ==
                doctest::Approx((1 - alpha) * at(t, e) / row + alpha * g).epsilon(1e-13));
        }
      }
    }
}

TEST_CASE("unified_scores: gradients of both views agree with finite differences") {
  const int64_t T = 7, E = 3;
  const Tensor direction = random({T, E}, 9);
  for (const ExpertScore view : {ExpertScore::sigmoid, ExpertScore::softmax})
    CHECK(gradient_error({random({T, E}, 4)}, [&](const std::vector<Parameter>& in) {
            return sum(multiply(unified_scores(in[0], 0.4, view, two_scopes(T)), direction));
          }) < 1e-8);
}

TEST_CASE("unified_scores: at z = 0 both sides see 1/E, and the pool is never looked at in causal evaluation") {
  const Tensor w = unified_scores(Tensor({5, 4}, DType::f64).zero(), 0.7, ExpertScore::sigmoid, {});
  for (double v : w.data<double>()) CHECK(v == doctest::Approx(0.25).epsilon(1e-15));
  RouterContext causal;
  causal.mode = Mode::eval;
  UnifiedOptions options;
  CHECK_NOTHROW(unified_scores(w, options, "batch", 0, causal));
  options.expert_score = "softmax";
  CHECK_THROWS_WITH_AS(unified_scores(w, options, "batch", 0, causal), doctest::Contains("expert_score = \"softmax\""),
                       UserError);
  CHECK_NOTHROW(unified_scores(w, options, "batch", 0, {}));
}
