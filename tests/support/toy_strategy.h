#pragma once
#include "core/error.h"
#include "moe/router.h"

namespace agon::test {

/// Options of a strategy that exists in tests only: one key of each type.
struct ToyOptions final : RouterOptions {
  int64_t k = 2;
  double sharpness = 0.5;
  bool noisy = false;
  std::string rule = "first";
  bool extended = false;  // whether the key `extra` exists
  int64_t extra = 7;

  void visit(OptionVisitor& v) override {
    v("k", k, Range::within(1, 64), "experts per token");
    v("sharpness", sharpness, Range::between(0, 1), "of the choice");
    v("noisy", noisy, "add noise");
    v("rule", rule, {"first", "last"}, "which one wins");
    if (extended) v("extra", extra, Range::any(), "known to toy_extended only");
  }
  void validate(int64_t experts) const override {
    require(k <= experts, "moe.router.k = ", k, " exceeds the ", experts, " experts");
  }
  double experts_per_token() const override { return double(k); }
  std::unique_ptr<Router> make(const RouterSize&) const override { throw Error("a toy routes nothing"); }
};

/// Makes the strategies `toy` and `toy_extended` known while it lives.
struct ToyStrategies {
  ToyStrategies() {
    routers()["toy"] = [] { return std::make_unique<ToyOptions>(); };
    routers()["toy_extended"] = [] {
      auto options = std::make_unique<ToyOptions>();
      options->extended = true;
      return options;
    };
  }
  ~ToyStrategies() { routers().erase("toy"), routers().erase("toy_extended"); }
  ToyStrategies(const ToyStrategies&) = delete;
};

}  // namespace agon::test
