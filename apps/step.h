#pragma once
#include <functional>
#include <memory>

#include "core/arena.h"

namespace agon {

/// Runs a body whose tensors live no longer than the call. The first call measures (blocks from the heap); the next
/// reserves one slab of the extent that was needed, and all later ones reuse it. A call that needed more takes heap
/// blocks for the rest, and the call after it reserves more. Throws Error when a body keeps memory.
class Step {
 public:
  explicit Step(Device device = {}) : device_(device) {}
  void operator()(const std::function<void()>& body);

  size_t extent() const { return extent_; }  ///< bytes of the slab that holds every call so far
  /// What held memory at the peak of the call that needed most, one line per part of the program.
  const std::string& peak_report() const { return report_; }

 private:
  Device device_;
  std::unique_ptr<Arena> arena_;
  size_t extent_ = 0;
  std::string report_;
};

}  // namespace agon
