#include "distributed/reduce.h"

namespace agon {

void all_reduce_gradients(std::span<Parameter* const> parameters, Communicator& all, Communicator& expert_replicas) {
  for (Parameter* p : parameters) {
    check(p->has_grad, "the parameter ", p->name, " has no gradient to sum over ranks");
    Communicator& ranks = p->group == Group::expert ? expert_replicas : all;
    if (ranks.size() > 1) ranks.all_reduce(p->grad);
  }
}

}  // namespace agon
