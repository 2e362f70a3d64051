#pragma once
#include <memory>

#include "core/device.h"

namespace agon {

/// Seconds a device needs for what this thread gives it between start() and stop(): by a GPU's own events, by the
/// host's steady clock on a CPU.
class Timer {
 public:
  explicit Timer(Device device = {}) : device_(device) {}
  void start();
  /// Seconds since start(). Waits until a GPU has come so far.
  double stop();

 private:
  Device device_;
  std::shared_ptr<void> from_, to_;
};

/// Notes the point in time at which the device comes to this place of its work, in a mark to be used again and again.
struct MarkTime {
  static void cpu(std::shared_ptr<void>& mark);
  static void cuda(std::shared_ptr<void>& mark);
};
struct TimeBetween {
  static void cpu(double& seconds, const std::shared_ptr<void>& from, const std::shared_ptr<void>& to);
  static void cuda(double& seconds, const std::shared_ptr<void>& from, const std::shared_ptr<void>& to);
};

}  // namespace agon
