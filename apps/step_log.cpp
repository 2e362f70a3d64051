#include "apps/step_log.h"

#include <algorithm>

#include "core/copy.h"
#include "ops/copy_part.h"

namespace agon {

StepLog::Place StepLog::add(const Tensor& values) {
  const Place place{used_, values.size()};
  used_ += values.size();
  if (numbers_.size() < used_) {
    const Arena::Outside outside;  // the next step uses it again
    const Tensor larger({std::max<int64_t>(1024, 2 * used_)}, DType::f64, device_);
    if (place.first > 0) copy_part(larger, 0, numbers_, 0, place.first);
    numbers_ = larger;
  }
  if (place.count > 0) copy_part(numbers_, place.first, values, 0, place.count);
  return place;
}

void StepLog::read(Communicator& all) {
  const Arena::Outside outside;
  ranks_ = all.size();
  if (ranks_ == 1) {
    here_ = on_host(numbers_);
    return;
  }
  here_ = on_host(all.all_gather(numbers_.part(0, used_)));
  check(here_.size() == ranks_ * used_, "the ranks have not logged the same: ", used_, " numbers here, ", here_.size(),
        " on ", ranks_, " ranks");
}

std::span<const double> StepLog::at(Place place, int rank) const {
  check(place.first + place.count <= used_, "a log of ", used_, " numbers has none at ", place.first, " to ",
        place.first + place.count);
  check(rank >= 0 && rank < ranks_, "a log of ", ranks_, " ranks has none of rank ", rank);
  if (place.count == 0) return {};
  return here_.data<const double>().subspan(size_t(rank * used_ + place.first), size_t(place.count));
}

}  // namespace agon
