#pragma once
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "autograd/module.h"
#include "core/options.h"
#include "distributed/exchange.h"
#include "moe/routing.h"

namespace agon {

class CompetitionSchedule;
struct ExpertGroup;
struct Thresholds;

/// train: scopes and capacities as configured. eval: causal. eval_noncausal: selections may see later tokens.
enum class Mode { train, eval, eval_noncausal };

/// Everything a decision may depend on besides the tokens' vectors.
struct RouterContext {
  int64_t step = 0;  // optimizer step, from 0
  int layer = 0;     // index of the block in the model
  Mode mode = Mode::train;
  bool compete = false;                           // the schedule's verdict for this layer and step
  const CompetitionSchedule* schedule = nullptr;  // where a model's layers get that verdict from in training
  /// [B+1] i32 on the CPU, for sizes depend on it: the sequences among the T tokens, padding left out; empty: one
  /// sequence.
  Tensor sequence_offsets;
  /// The same on the device of x; empty: nobody has put them there, or that is the CPU (scopes.h: sequences_on).
  Tensor sequence_offsets_there;
  Tensor token;             // [T] i32 ids
  int64_t most_tokens = 0;  // of any rank of `comm`, where they differ: what a bounded exchange reckons with
  int64_t first_row = 0;    // global number of the first token, for keyed random draws
  uint64_t seed = 0;
  const ExpertGroup* experts = nullptr;  // for strategies that let the experts compete
  Communicator* comm = nullptr;          // the ranks the experts are spread over
  ExchangeOptions exchange;              // how rows travel between them
  Communicator* everyone = nullptr;      // all ranks that share the global batch; null: those of `comm`
  /// Decisions to be repeated, by layer: the same pairs and, where experts compete, the same answers as a constant.
  /// Replays routing, and holds it fixed for finite differences.
  std::span<const Pairs> held = {};
  std::vector<Pairs>* decided = nullptr;  // where a model notes its decisions, by layer
  const Pairs* held_pairs() const { return held.empty() ? nullptr : &held[size_t(layer)]; }
  /// [E] f64 on the device of the pairs: Statistics::chosen of this layer summed over all ranks and the earlier
  /// micro-batches of this step; empty before the first. What the balance loss of scope "global" adds to this
  /// micro-batch's counts.
  Tensor counts_so_far;
};

/// A named scalar on the tape, averaged over this micro-batch's tokens, before its coefficient.
struct Loss {
  std::string name;  // "balance", "z", "entropy", "router", "diversity"
  Tensor value;      // [1] f32 (f64)
  double coefficient;
};
using Losses = std::vector<Loss>;

/// Named numbers that stay on the device that made them until somebody asks.
struct Figures {
  std::vector<std::string> names;
  Tensor values;  // [n] f64; NaN: does not occur in this call. Empty: no figures

  /// By name, without those that do not occur. Waits for the device.
  std::map<std::string, double> read() const;
};

/// Figures of one call, without gradient, on the device of the pairs.
struct Statistics {
  Tensor load;             // [E] f64: selected pairs per expert, after dropping
  Tensor chosen;           // [E] f64: what the balance loss counts: pairs before dropping, or first winners
  Figures figures;         // "dropped", "entropy", ...: see statistics.h
  Tensor candidates = {};  // [T, E] f32 (f64), without gradient: the scores that thresholds are taken from; empty for
                           // strategies without thresholds

  std::map<std::string, double> scalars() const { return figures.read(); }
};

struct Weighed {
  Tensor weight;  // [N] f32 (f64), on the tape
  Losses losses;
  Statistics statistics;
};

/// What one layer did in an optimizer step.
struct StepRecord {
  Tensor chosen;                     // [E] f64: Statistics::chosen summed over all ranks and micro-batches
  std::vector<Tensor> candidates;    // Statistics::candidates of this rank's micro-batches
  Communicator* everyone = nullptr;  // all ranks that share the global batch
};

/// A routing strategy, in two phases: `select` decides (the choice carries no gradient; its weights may), `weigh` makes
/// weights, losses and statistics. ROUTING.md of the project's documents has the mathematics.
class Router {
 public:
  virtual ~Router() = default;
  /// x [T, D] in the compute dtype.
  virtual Pairs select(const Tensor& x, const RouterContext& context) = 0;
  /// rows [N, D]: the experts' answers to the chosen pairs, sorted as `plan` says, on the tape; empty unless
  /// weighs_rows.
  virtual Weighed weigh(const Pairs& pairs, const Tensor& rows, const Plan& plan, const RouterContext& context) = 0;
  /// Whether `weigh` needs the experts' rows in this context: such a layer makes them before it sums.
  virtual bool weighs_rows(const RouterContext&) const { return false; }
  /// Parameters and named state.
  virtual void visit(const Visitor& v) = 0;
  /// The only place where state changes: after an optimizer step. Collective over the ranks of `everyone`.
  virtual void after_step(const StepRecord& record) { (void)record; }
  /// What lets a strategy that chooses between tokens run without seeing later ones; null for the others.
  virtual Thresholds* thresholds() { return nullptr; }
};

struct RouterSize {
  int64_t width, experts;
  Precision precision;
  double deviation;  // of the gate's initial weights
};

/// The matrix that makes logits [T, E] of tokens: [E, D] in the master dtype, normal.
Parameter make_gate(const RouterSize& size);

/// What the schedule of competition steps is made from (schedule.h).
struct CompetitionRate {
  double rate = 0.07;      // share of a layer's steps
  double warm_up = 0.05;   // share of the training, at its start, without competition
  int64_t max_layers = 3;  // at most so many layers compete in one step
};

/// A strategy's options, and the way to make it.
class RouterOptions {
 public:
  virtual ~RouterOptions() = default;
  virtual void visit(OptionVisitor& v) = 0;
  /// Throws UserError when options contradict each other or the number of experts.
  virtual void validate(int64_t experts) const = 0;
  virtual std::unique_ptr<Router> make(const RouterSize& size) const = 0;
  /// The mean number of experts that work on a token: what FLOPs and active parameters are counted with.
  virtual double experts_per_token() const = 0;
  /// When the experts compete (schedule.h); null for strategies in which they never do.
  virtual const CompetitionRate* competition() const { return nullptr; }
  /// Whether its `score`, `selection` and `weight` can be combined freely: a config that names axes need not name it.
  virtual bool free_axes() const { return false; }
  /// Whether it can choose without seeing later tokens.
  virtual bool causal() const { return true; }
  /// What is allowed and probably not meant; "" for nothing.
  virtual std::string warning() const { return ""; }
};

using RouterOptionsFactory = std::function<std::unique_ptr<RouterOptions>()>;

/// All strategies, by the name a config uses.
std::map<std::string, RouterOptionsFactory>& routers();

/// The options of a strategy, with their defaults. UserError naming the known strategies.
std::unique_ptr<RouterOptions> make_router_options(const std::string& strategy);

/// One line at the end of a strategy's file makes it available by name.
struct RegisterRouter {
  RegisterRouter(const char* name, RouterOptionsFactory make);
};

}  // namespace agon
