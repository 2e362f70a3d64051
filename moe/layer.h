#pragma once
#include <memory>

#include "distributed/exchange.h"
#include "moe/experts.h"
#include "moe/router.h"

namespace agon {

/// The section [moe] of a config, as far as one layer is concerned.
struct MoeOptions {
  int64_t experts = 8;
  int64_t expert_width = 0;  // 0: the model's feed-forward width
  std::string activation = "swiglu";
  bool bias = false;
  int64_t shared_experts = 0;  // experts every token uses, as one feed-forward of shared_experts * expert_width
  bool shared_gate = false;    // weigh the shared experts by sigmoid(w·x), as Qwen2-MoE does

  void visit(OptionVisitor& v);
};

struct LayerOutput {
  Tensor y;  // [T, D]
  Losses losses;
  Statistics statistics;
};

/// What a layer decided, for those who look inside: tensors are on the tape where Pairs and Weighed say so.
struct Decision {
  Pairs pairs;
  Tensor weight;  // [N], as Weighed::weight
};

/// How a layer's weights start.
struct MoeInit {
  double gate, up, down;  // standard deviations
};

/// Select, plan, exchange, experts, exchange back, weigh: the same lines on one rank and on many. `comm` is the group
/// the experts are spread over; expert e belongs to rank e / (E / size). A bounded exchange is one of training: in
/// other modes rows travel exactly. It adds the figure exchange_dropped, the share of the chosen pairs that did not
/// fit.
class MoeLayer {
 public:
  /// Throws UserError when the experts do not divide over the ranks or the router's options do not fit.
  MoeLayer(const MoeOptions& options, const RouterOptions& router, int64_t width, Precision precision, MoeInit init,
           Communicator& comm, const ExchangeOptions& exchange = {});

  /// x [T, D]. context.experts and context.comm are set here; `decision` is filled where it is given.
  LayerOutput operator()(const Tensor& x, RouterContext context, Decision* decision = nullptr);

  ExpertGroup& experts() { return experts_; }
  Router& router() { return *router_; }

  void visit(auto&& v) {
    v("router", *router_);
    v("experts", experts_);
    v("shared", shared_);
    v("shared_gate", shared_gate_);
  }

 private:
  int64_t total_;  // E
  std::unique_ptr<Router> router_;
  ExpertGroup experts_;
  std::unique_ptr<FeedForward> shared_;
  Parameter shared_gate_;  // [1, D]
  Communicator& comm_;
  ExchangeOptions exchange_;
  double experts_per_token_;
};

}  // namespace agon
