#include "apps/ranks.h"

#include "distributed/together.h"

namespace agon {

namespace {

/// The number of ranks an expert is found on once.
int spread_of(const Config& c, int ranks) {
  const int64_t spread = c.parallel.expert;
  require(ranks % spread == 0, c.named("parallel.expert"), ": experts spread over ", spread,
          " ranks do not divide a job of ", ranks, ranks == 1 ? " rank" : " ranks", "; expected a divisor of it");
  const bool cut = c.train.micro_batch > 0;
  const int64_t sequences = cut ? c.train.micro_batch : c.train.batch, group = c.routing_group();
  require(sequences % (ranks * group) == 0, c.named(cut ? "train.micro_batch" : "train.batch"), ": ", sequences,
          " sequences do not divide over ", ranks, " ranks",
          group > 1 ? text(" in routing groups of ", group, " sequences") : "", "; expected a multiple of ",
          ranks * group);
  return int(spread);
}

}  // namespace

Ranks::Ranks(const Config& config, Communicator& a) : all(a) {
  int spread = 1;
  together(all, [&] { spread = spread_of(config, all.size()); });
  experts = make_expert_ranks(all, spread);
}

int Ranks::on_this_host() const {
  int n = 0;
  for (int r = 0; r < size(); ++r) n += all.host(r) == all.host(rank());
  return n;
}

Communication Ranks::communication() const {
  Communication sum;
  for (const Communicator* group :
       {static_cast<const Communicator*>(&all), static_cast<const Communicator*>(experts.group.get()),
        static_cast<const Communicator*>(experts.replicas.get())})
    for (const auto& [operation, t] : group->traffic()) {
      sum.bytes += double(t.sent);
      sum.seconds += t.seconds;
      sum.waited += t.waited;
    }
  return sum;
}

}  // namespace agon
