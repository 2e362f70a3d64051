#include "moe/layer.h"

#include <algorithm>
#include <optional>

#include "core/copy.h"
#include "core/profile.h"
#include "moe/dispatch.h"
#include "moe/expert_ffn.h"
#include "moe/journey.h"
#include "moe/statistics.h"
#include "ops/activation.h"
#include "ops/elementwise.h"
#include "ops/linear.h"

namespace agon {

void MoeOptions::visit(OptionVisitor& v) {
  v("experts", experts, Range::at_least(1), "experts of a layer, over all ranks");
  v("expert_width", expert_width, Range::at_least(0), "width of an expert; 0: that of the model's feed-forward");
  v("activation", activation, {"swiglu", "gelu", "relu"}, "of the experts");
  v("bias", bias, "experts have biases");
  v("shared_experts", shared_experts, Range::at_least(0),
    "experts that every token uses, as one feed-forward of so many widths");
  v("shared_gate", shared_gate, "weigh the shared experts by sigmoid(w·x)");
}

MoeLayer::MoeLayer(const MoeOptions& options, const RouterOptions& router, int64_t width, Precision precision,
                   MoeInit init, Communicator& comm, const ExchangeOptions& exchange)
    : total_(options.experts), comm_(comm), exchange_(exchange), experts_per_token_(router.experts_per_token()) {
  require(total_ >= 1, "moe.experts = ", total_, ", expected at least 1");
  require(options.expert_width >= 1, "moe.expert_width = ", options.expert_width, ", expected at least 1");
  require(total_ % comm.size() == 0, "moe.experts = ", total_, " do not divide over ", comm.size(), " ranks");
  require(options.shared_experts > 0 || !options.shared_gate, "moe.shared_gate without moe.shared_experts");
  router.validate(total_);
  router_ = router.make({width, total_, precision, init.gate});
  const Activation activation = activation_named(options.activation);
  experts_ = ExpertGroup(total_ / comm.size(), width, options.expert_width, activation, options.bias, precision,
                         init.up, init.down);
  each_parameter(experts_, [&](const std::string&, Parameter& p) { p.first = comm.rank() * p.value.size(); });
  if (options.shared_experts == 0) return;
  shared_ = std::make_unique<FeedForward>(width, options.shared_experts * options.expert_width, activation,
                                          options.bias, precision, init.up, init.down);
  if (!options.shared_gate) return;
  shared_gate_ = Parameter({1, width}, in_master(precision));
  shared_gate_.init = Init::normal;
  shared_gate_.deviation = init.gate;
  shared_gate_.decays = true;
}

LayerOutput MoeLayer::operator()(const Tensor& x, RouterContext context, Decision* decision) {
  check(x.shape().rank() == 2, "MoeLayer: x must be [T, D], got ", x.shape());
  context.experts = &experts_;
  context.comm = &comm_;
  context.exchange = exchange_;
  const auto in_part = [](const char* name, auto&& f) {
    const Part part(name);
    return f();
  };

  const Pairs pairs = in_part("router", [&] { return router_->select(x, context); });
  const Plan plan = in_part("dispatch", [&] { return make_plan(pairs.expert, pairs.token_offsets, total_); });
  const bool bounded = exchange_.bounded && context.mode == Mode::train && (comm_.size() > 1 || exchange_.own_too);
  const Journey journey = in_part("dispatch", [&] {
    const int64_t tokens = std::max(x.shape(0), context.most_tokens);
    return Journey(
        pairs, plan, total_, comm_, exchange_,
        bounded ? std::optional(bounds_of(exchange_, tokens, experts_per_token_, total_, comm_.size())) : std::nullopt);
  });
  const Tensor arrived = in_part("dispatch", [&] { return journey.out(x); });
  Weighed weighed;
  Tensor y;
  if (!router_->weighs_rows(context)) {
    weighed = in_part("router", [&] { return router_->weigh(pairs, {}, plan, context); });
    const Tensor weight = in_part("dispatch", [&] { return journey.out_weight(weighed.weight); });
    const Tensor part = in_part("experts", [&] { return expert_ffn(arrived, journey.plan(), weight, experts_); });
    y = in_part("dispatch", [&] { return journey.home(part); });
  } else {
    const Tensor answers = in_part("experts", [&] { return expert_answers(arrived, journey.plan(), experts_); });
    const Tensor rows = in_part("dispatch", [&] { return journey.rows_home(answers); });
    weighed = in_part("router", [&] { return router_->weigh(pairs, rows, plan, context); });
    y = in_part("dispatch", [&] { return combine(rows, weighed.weight, plan); });
  }
  if (bounded) {
    const Tensor dropped = tensor_of<double>({double(journey.dropped())});
    const double chosen = double(on_host(pairs.token_offsets).data<const int32_t>().back());
    add_figure(weighed.statistics, "exchange_dropped", on_device(dropped, x.device()), std::max(1.0, chosen));
  }
  if (decision) *decision = {pairs, weighed.weight};
  if (shared_) {
    const Part part("experts");
    Tensor shared = (*shared_)(x);
    if (shared_gate_) shared = scale_rows(shared, sigmoid(linear(x, shared_gate_)));
    y = add(y, shared);
  }
  return {y, std::move(weighed.losses), std::move(weighed.statistics)};
}

}  // namespace agon
