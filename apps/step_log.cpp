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

void StepLog::read() {
  const Arena::Outside outside;
  here_ = on_host(numbers_);
}

std::span<const double> StepLog::at(Place place) const {
  check(place.first + place.count <= used_, "a log of ", used_, " numbers has none at ", place.first, " to ",
        place.first + place.count);
  if (place.count == 0) return {};
  return here_.data<const double>().subspan(size_t(place.first), size_t(place.count));
}

}  // namespace agon
