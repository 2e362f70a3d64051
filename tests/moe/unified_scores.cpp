#include "moe/unified_scores.h"

#include <doctest/doctest.h>

#include <cmath>

#include "ops/elementwise.h"
#include "ops/reduce.h"
#include "tests/moe/support.h"
#include "tests/support/cuda.h"

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

GPU_CASE("unified_scores: a GPU makes the same of every scope, forward and backward") {
  RouterContext context;
  context.sequence_offsets = tensor_of<int32_t>({0, 5, 5, 6, 50});
  context.sequence_offsets_there = there(context.sequence_offsets);
  for (const int64_t E : {1, 3, 70})
    for (const char* kind : {"batch", "sequence", "time_step"}) {
      CAPTURE(E);
      CAPTURE(std::string(kind));
      const Tensor z = random({50, E}, 2, 3, DType::f32), on_gpu = there(z);
      const Scopes here = make_scopes(context, 50, 0, kind),
                   scopes = make_scopes(context, 50, 0, kind, device_of_case());
      const auto run_both = [&](const Tensor& x, const Scopes& s) {
        Tape tape({});
        tape.watch(x);
        const Tensor y = softmax_over_tokens(x, s);
        tape.backward(probe(y, 4));
        return std::pair(y, tape.gradient(x));
      };
      const auto [y, dz] = run_both(z, here);
      const auto [found, dfound] = run_both(on_gpu, scopes);
      CHECK(relative_error(found, y) < 1e-6);
      CHECK(relative_error(dfound, dz) < 1e-5);
      const Tensor share({50}, DType::f32), share_there({50}, DType::f32, device_of_case());
      run<TokensOverExperts>(Device(), share, here, E);
      run<TokensOverExperts>(device_of_case(), share_there, scopes, E);
      CHECK(identical(share_there, share));
      for (const uint64_t order : {1, 2}) {
        const ThreadOrder changed(order);
        const auto [again, dagain] = run_both(on_gpu, scopes);
        CHECK(identical(again, found));
        CHECK(identical(dagain, dfound));
      }
    }
}

GPU_CASE("unified_scores: both views, where the scores are read") {
  const Tensor z = random({9, 4}, 2, 1, DType::f32), on_gpu = there(z);
  UnifiedOptions options;
  for (const char* view : {"sigmoid", "softmax"}) {
    options.expert_score = view;
    const auto before = crossings();
    const Tensor w = unified_scores(on_gpu, options, "batch", 0, {});
    CHECK(crossings().to_host == before.to_host);
    CHECK(crossings().to_device == before.to_device);
    CHECK(relative_error(w, unified_scores(z, options, "batch", 0, {})) < 1e-6);
  }
}
