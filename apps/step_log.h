#pragma once
#include <span>

#include "core/tensor.h"

namespace agon {

/// The numbers of a step, kept on the device that made them until one crossing brings all of them.
class StepLog {
 public:
  explicit StepLog(Device device = {}) : device_(device) {}

  /// Where a tensor's numbers are among all of them.
  struct Place {
    int64_t first = 0, count = 0;
  };
  /// Notes the elements of a tensor of floats on the log's device, as f64; an empty tensor has none.
  Place add(const Tensor& values);
  /// Waits for the device and brings what was added.
  void read();
  /// The numbers at a place, after read().
  std::span<const double> at(Place place) const;
  double value(Place place) const { return at(place)[0]; }
  /// Forgets all of them: places begin anew.
  void clear() { used_ = 0; }

 private:
  Device device_;
  Tensor numbers_, here_;  // f64, on the device and on the host
  int64_t used_ = 0;
};

}  // namespace agon
