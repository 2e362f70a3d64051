#pragma once
#include <span>

#include "distributed/communicator.h"

namespace agon {

/// The numbers of a step, kept on the device that made them until one crossing brings all of them, those of all ranks.
class StepLog {
 public:
  explicit StepLog(Device device = {}) : device_(device) {}

  /// Where a tensor's numbers are among all of them.
  struct Place {
    int64_t first = 0, count = 0;
  };
  /// Notes the elements of a tensor of floats on the log's device, as f64; an empty tensor has none.
  Place add(const Tensor& values);
  /// Waits for the device and brings what was added, by all ranks: each has added as many numbers in the same order, or
  /// it is an Error. Collective.
  void read(Communicator& all);
  int ranks() const { return ranks_; }  ///< whose numbers were read
  /// The numbers of a rank at a place, after read().
  std::span<const double> at(Place place, int rank = 0) const;
  double value(Place place, int rank = 0) const { return at(place, rank)[0]; }
  /// Forgets all of them: places begin anew.
  void clear() { used_ = 0; }

 private:
  Device device_;
  Tensor numbers_, here_;  // f64, on the device and, of all ranks, on the host
  int64_t used_ = 0;
  int ranks_ = 1;
};

}  // namespace agon
