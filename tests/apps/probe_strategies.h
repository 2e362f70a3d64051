#pragma once
#include <memory>

#include "core/copy.h"
#include "moe/losses.h"
#include "moe/router.h"
#include "moe/thresholds.h"

namespace agon::testing {

/// Token choice that also shows everything else a probe has to pass on: it has thresholds, one for each of the experts,
/// it knows whether it competes, and has losses that depend on nothing or have the name of something else.
class Showing final : public Router {
 public:
  explicit Showing(const RouterSize& size)
      : inner_(make_router_options("token_choice")->make(size)),
        thresholds_(size.experts, accumulator_dtype(size.precision.master), 2, 0.9) {}

  Pairs select(const Tensor& x, const RouterContext& context) override {
    Pairs pairs = inner_->select(x, context);
    if (context.compete) pairs.affinity = clone(pairs.logits);
    return pairs;
  }
  Weighed weigh(const Pairs& pairs, const Tensor& rows, const Plan& plan, const RouterContext& context) override {
    Weighed weighed = inner_->weigh(pairs, rows, plan, context);
    const auto constant = [&](double value) {
      Tensor t({1}, pairs.logits.dtype());
      fill(t, value);
      return t;
    };
    double sum = 0;
    const Tensor values = converted(thresholds_.value, DType::f64);
    for (const double v : values.data<const double>()) sum += v;
    weighed.losses.push_back({"z", router_z(pairs.logits), 0.1});
    weighed.losses.push_back({"limit", constant(sum), 0.5});
    weighed.losses.push_back({"loss.z", constant(double(context.sequence_offsets.size())), 0.25});
    return weighed;
  }
  void visit(const Visitor& v) override {
    inner_->visit(v);
    v("threshold", thresholds_.value);
  }
  Thresholds* thresholds() override { return &thresholds_; }

 private:
  std::unique_ptr<Router> inner_;
  Thresholds thresholds_;
};

class ShowingOptions final : public RouterOptions {
 public:
  void visit(OptionVisitor&) override {}
  void validate(int64_t) const override {}
  std::unique_ptr<Router> make(const RouterSize& size) const override { return std::make_unique<Showing>(size); }
  double experts_per_token() const override { return 2; }
  const CompetitionRate* competition() const override { return &rate_; }

 private:
  CompetitionRate rate_;
};

/// Makes a strategy known while it lives.
template <class Options>
class Registered {
 public:
  explicit Registered(std::string name) : name_(std::move(name)) {
    routers()[name_] = [] { return std::make_unique<Options>(); };
  }
  ~Registered() { routers().erase(name_); }
  Registered(const Registered&) = delete;
  Registered& operator=(const Registered&) = delete;

 private:
  std::string name_;
};

}  // namespace agon::testing
