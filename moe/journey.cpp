#include "moe/journey.h"

#include <utility>

#include "autograd/tape.h"
#include "core/copy.h"
#include "moe/two_sources.h"
#include "ops/copy_part.h"

namespace agon {

namespace {

/// rows [index] of `first` and `second`.
Tensor gather(const Tensor& index, const Tensor& first, const Tensor& second) {
  const Tensor& like = first ? first : second;
  Tensor y(like.shape().with(0, index.size()), like.dtype(), like.device());
  run<TwoSources::Gather>(like.device(), y, first, second, index);
  return y;
}

}  // namespace

Tensor Journey::Way::spread(const Tensor& x) const {
  const Tensor came = exchange(gather(lists.leaving_rows, x, {}), lists.rows_out, lists.rows_in, comm, bf16);
  if (lists.own_rows == 0) return came;
  Tensor arrived(x.shape().with(0, x.shape(0) + came.shape(0)), x.dtype(), x.device());
  copy_part(arrived, 0, x, 0, x.size());
  copy_part(arrived, x.size(), came, 0, came.size());
  return arrived;
}

Tensor Journey::Way::gathered(const Tensor& y) const {
  const int64_t own = lists.own_rows, others = y.shape(0) - own, D = y.shape(1);
  const Tensor leaving = y.part(own * D, others * D).reshape({others, D});
  const Tensor returned = exchange(leaving, lists.rows_in, lists.rows_out, comm, bf16);
  const Tensor sum({lists.visit_offsets.size() - 1, y.shape(1)}, y.dtype(), y.device());
  run<TwoSources::Sum>(y.device(), sum, returned, y, lists.visits, lists.visit_offsets);
  return sum;
}

Tensor Journey::Way::to_experts(const Tensor& weight) const {
  const Tensor came = exchange(gather(lists.leaving_pairs, weight, {}), lists.pairs_out, lists.pairs_in, comm);
  return gather(lists.arrived_pairs, came, weight);
}

Tensor Journey::Way::from_experts(const Tensor& weight) const {
  const Tensor returned = exchange(gather(lists.returning_pairs, weight, {}), lists.pairs_in, lists.pairs_out, comm);
  return gather(lists.home_pairs, returned, weight);
}

Journey::Journey(const Pairs& pairs, const Plan& plan, int64_t experts, Communicator& comm,
                 const ExchangeOptions& options, const std::optional<ExchangeBounds>& bounds)
    : here_(plan) {
  if (comm.size() == 1 && !options.own_too) return;
  way_ = std::make_shared<const Way>(
      Way{make_journey_lists(pairs, experts, comm, options.own_too, bounds), comm, options.bf16});
}

Tensor Journey::out(const Tensor& x) const {
  if (!way_) return x;
  return record("journey out", {&x}, way_->spread(x),
                [x = x.without_data(), way = way_](Gradients& g, const Tensor& d) { g.add(x, way->gathered(d)); });
}

Tensor Journey::home(const Tensor& y) const {
  if (!way_) return y;
  return record("journey home", {&y}, way_->gathered(y),
                [y = y.without_data(), way = way_](Gradients& g, const Tensor& d) { g.add(y, way->spread(d)); });
}

Tensor Journey::out_weight(const Tensor& weight) const {
  if (!way_) return weight;
  return record("journey of weights", {&weight}, way_->to_experts(weight),
                [weight = weight.without_data(), way = way_](Gradients& g, const Tensor& d) {
                  g.add(weight, way->from_experts(d));
                });
}

Tensor Journey::rows_home(const Tensor& rows) const {
  if (!way_) return rows;
  const Plan &here = here_, &there = plan();
  const JourneyLists& l = way_->lists;
  const Tensor to = rows_of(l.returning_pairs, there), from = sources_by_row(here, l.home_pairs, there),
               back_to = rows_of(l.leaving_pairs, here), back_from = sources_by_row(there, l.arrived_pairs, here);
  const Tensor came = exchange(gather(to, rows, {}), l.pairs_in, l.pairs_out, way_->comm, way_->bf16);
  return record("journey of answers", {&rows}, gather(from, came, rows),
                [rows = rows.without_data(), way = way_, back_to, back_from](Gradients& g, const Tensor& d) {
                  const Tensor slopes =
                      exchange(gather(back_to, d, {}), way->lists.pairs_out, way->lists.pairs_in, way->comm, way->bf16);
                  g.add(rows, gather(back_from, slopes, d));
                });
}

}  // namespace agon
