#pragma once
#include <deque>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "autograd/parameter.h"
#include "distributed/communicator.h"

namespace agon {

/// Sums the gradients of parameters over ranks while a tape still makes others: those of shared parameters over `all`
/// ranks, those of experts over the ranks that hold a copy (placement.h). There is no division: the loss was divided by
/// the tokens of all ranks.
///
/// From the last parameter to the first, about as a backward pass finishes them, gradients move to places one after the
/// other in buckets (Parameter::grad is changed here, once), whose sums are started in this order as their gradients
/// are complete. Where a parameter has one rank alone, its gradient stays where it is and nothing is sent.
///
/// Each bucket is cut evenly over its ranks: a rank's shares of parameters, which together with those of the other
/// ranks are every shared parameter once and every expert once. Collective; all ranks give corresponding parameters.
class GradientBuckets {
 public:
  /// Buckets of about `bytes`. `scatter`: only a rank's own shares are summed, and the rest of the gradients is left
  /// undefined.
  GradientBuckets(std::span<Parameter* const> parameters, Communicator& all, Communicator& expert_replicas,
                  int64_t bytes, bool scatter);

  /// Elements [first, first + part.master.size()) of a parameter; tensors share its blocks.
  struct Share {
    Parameter* whole;
    int64_t first;
    Parameter part;
  };

  /// The gradient of p is complete on this rank (Tape::Ready). Starts what can be started, lets go on what is under
  /// way.
  void ready(Parameter& p);
  /// Starts the rest and waits for all: the gradients are sums. Error naming a parameter without a gradient.
  void finish();
  /// After the masters of this rank's shares have changed: all masters as their ranks have them; values follow. The
  /// gradients are undefined then.
  void gather_masters();

  const std::deque<Share>& shares() const { return shares_; }
  /// The shares' parameters, for an update.
  std::span<Parameter* const> parts() const { return parts_; }

 private:
  struct Member {
    Parameter* parameter;
    int64_t place;  // of its gradient, in the bucket
    bool complete = false;
  };
  struct Bucket {
    Communicator* ranks;
    std::vector<Member> members;
    Tensor sum;           // [n]: the gradients, and zeros between them; n is a multiple of the ranks
    int64_t missing = 0;  // gradients that are not complete
    std::unique_ptr<StartedCall> call;
    int64_t share() const { return sum.size() / ranks->size(); }
    Tensor own() const { return sum.part(ranks->rank() * share(), share()); }
  };
  void close(Bucket bucket, int64_t size);
  void start(Bucket& bucket) const;
  void add_share(Parameter& whole, int64_t first, int64_t count);

  bool scatter_;
  std::vector<Bucket> buckets_;
  size_t started_ = 0;
  std::unordered_map<const Parameter*, std::pair<size_t, size_t>> place_of_;  // bucket and member
  std::vector<Parameter*> alone_;                                             // that have one rank
  std::vector<Communicator*> groups_;                                         // with more than one rank
  std::deque<Share> shares_;
  std::vector<Parameter*> parts_;
};

}  // namespace agon
