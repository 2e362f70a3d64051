#include "distributed/reduce.h"

#include <algorithm>
#include <utility>

#include "core/arena.h"
#include "core/copy.h"

namespace agon {

namespace {

/// Gradients start, and shares are cut, at multiples of so many elements: of kAlignment bytes, for f32.
constexpr int64_t kUnit = 64;
constexpr int64_t up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

void require_gradient(const Parameter& p) {
  check(p.has_grad, "the parameter ", p.name, " has no gradient to sum over ranks");
}

}  // namespace

GradientBuckets::GradientBuckets(std::span<Parameter* const> parameters, Communicator& all,
                                 Communicator& expert_replicas, int64_t bytes, bool scatter)
    : scatter_(scatter) {
  for (Communicator* c : {&all, &expert_replicas})
    if (c->size() > 1) groups_.push_back(c);
  struct Open {
    Bucket bucket;
    int64_t size = 0;
  };
  std::unordered_map<Communicator*, Open> open;
  std::vector<Communicator*> order;  // of the open ones, by their first gradient
  for (size_t i = parameters.size(); i-- > 0;) {
    Parameter& p = *parameters[i];
    Communicator* const ranks = p.group == Group::expert ? &expert_replicas : &all;
    if (ranks->size() == 1) {
      alone_.push_back(&p);
      add_share(p, 0, p.grad.size());
      continue;
    }
    Open& o = open[ranks];
    const int64_t room = bytes / size_of(p.grad.dtype());
    if (!o.bucket.members.empty() && o.size + p.grad.size() > room) {
      close(std::exchange(o.bucket, {}), std::exchange(o.size, 0));
      std::erase(order, ranks);
    }
    if (o.bucket.members.empty()) order.push_back(ranks);
    o.bucket.ranks = ranks;
    o.bucket.members.push_back({&p, o.size});
    o.size += up(p.grad.size(), kUnit);
  }
  for (Communicator* ranks : order) close(std::move(open[ranks].bucket), open[ranks].size);
  for (Share& s : shares_) parts_.push_back(&s.part);
}

void GradientBuckets::add_share(Parameter& whole, int64_t first, int64_t count) {
  Share& s = shares_.emplace_back(Share{&whole, first, {}});
  s.part.name = whole.name;
  s.part.group = whole.group;
  s.part.decays = whole.decays;
  s.part.first = whole.first + first;
  s.part.value = whole.value.part(first, count);
  s.part.master = whole.master.part(first, count);
  s.part.grad = whole.grad.part(first, count);
}

void GradientBuckets::close(Bucket b, int64_t size) {
  const Tensor& first = b.members.front().parameter->grad;
  {
    const Arena::Outside outside;
    b.sum = Tensor({up(size, kUnit * b.ranks->size())}, first.dtype(), first.device());
  }
  b.sum.zero();
  b.missing = int64_t(b.members.size());
  const int64_t begin = b.ranks->rank() * b.share(), end = begin + b.share();
  for (size_t i = 0; i < b.members.size(); ++i) {
    auto& [p, place, complete] = b.members[i];
    check(p->grad.dtype() == b.sum.dtype() && p->grad.device() == b.sum.device(), "the gradient of ", p->name, " is ",
          p->grad.dtype(), " on ", p->grad.device(), ", those before it ", b.sum.dtype(), " on ", b.sum.device());
    place_of_[p] = {buckets_.size(), i};
    p->grad = b.sum.part(place, p->grad.size()).reshape(p->grad.shape());
    const int64_t from = std::clamp(begin - place, int64_t(0), p->grad.size()),
                  to = std::clamp(end - place, int64_t(0), p->grad.size());
    if (from < to) add_share(*p, from, to - from);
  }
  buckets_.push_back(std::move(b));
}

void GradientBuckets::start(Bucket& b) const {
  const Arena::Outside outside;  // a result may live longer than what goes on now
  b.call = scatter_ ? b.ranks->start_reduce_scatter(b.sum) : b.ranks->start_all_reduce(b.sum);
}

void GradientBuckets::ready(Parameter& p) {
  // A tape that found no gradient for it comes again, with zeros.
  if (const auto it = place_of_.find(&p); it != place_of_.end() && p.has_grad) {
    Bucket& b = buckets_[it->second.first];
    if (!std::exchange(b.members[it->second.second].complete, true)) --b.missing;
    while (started_ < buckets_.size() && buckets_[started_].missing == 0) start(buckets_[started_++]);
  }
  for (Communicator* group : groups_) group->progress();
}

void GradientBuckets::finish() {
  for (const Parameter* p : alone_) require_gradient(*p);
  for (const Bucket& b : buckets_)
    for (const Member& m : b.members) require_gradient(*m.parameter);
  while (started_ < buckets_.size()) start(buckets_[started_++]);
  started_ = 0;
  for (Bucket& b : buckets_) {
    const Tensor sum = std::exchange(b.call, nullptr)->finish();
    if (scatter_) copy(b.own(), sum);
    b.missing = int64_t(b.members.size());
    for (Member& m : b.members) m.complete = false;
  }
  for (Parameter* p : parts_) p->has_grad = true;
}

void GradientBuckets::gather_masters() {
  std::unordered_map<const Parameter*, const Share*> own;
  for (const Share& s : shares_) own[s.whole] = &s;
  for (Bucket& b : buckets_) {
    for (const Member& m : b.members)
      if (const auto it = own.find(m.parameter); it != own.end())
        copy(b.sum.part(m.place + it->second->first, it->second->part.master.size()), it->second->part.master);
    const Tensor all = b.ranks->all_gather(b.own());
    for (const Member& m : b.members) {
      copy(m.parameter->master, all.part(m.place, m.parameter->master.size()));
      m.parameter->refresh();
    }
  }
}

}  // namespace agon
