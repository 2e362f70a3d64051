#pragma once
#include <cstddef>
#include <memory>

#include "core/device.h"

namespace agon {

/// Work that a device does beside what this thread gives it: a stream of its own on a GPU, none on a CPU, where all is
/// done when the call returns. A mark is a place in the lane's work.
class Lane {
 public:
  using Mark = std::shared_ptr<void>;
  explicit Lane(Device device);

  Device device() const { return device_; }
  void* stream() const { return stream_.get(); }  ///< CUDA's; null on a CPU
  /// What is put into the lane from now on waits for what this thread has given the device.
  void follow_work();
  /// Notes the place the lane has come to, in a mark to be used again and again (made where it is null).
  void set(Mark& mark) const;
  void copy(void* to, const void* from, size_t bytes) const;

  /// What this thread gives the device from now on waits until the lane has come to the mark.
  static void work_follows(Device device, const Mark& mark);
  /// Whether the lane has come so far. Any thread may ask.
  static bool reached(Device device, const Mark& mark);

 private:
  Device device_;
  std::shared_ptr<void> stream_;
  Mark work_;
};

struct OpenLane {
  static void cpu(std::shared_ptr<void>& stream);
  static void cuda(std::shared_ptr<void>& stream);
};
struct FollowWork {
  static void cpu(void* stream, Lane::Mark& mark);
  static void cuda(void* stream, Lane::Mark& mark);
};
struct SetMark {
  static void cpu(void* stream, Lane::Mark& mark);
  static void cuda(void* stream, Lane::Mark& mark);
};
struct CopyInLane {
  static void cpu(void* stream, void* to, const void* from, size_t bytes);
  static void cuda(void* stream, void* to, const void* from, size_t bytes);
};
struct WorkFollows {
  static void cpu(const Lane::Mark& mark);
  static void cuda(const Lane::Mark& mark);
};
struct MarkReached {
  static void cpu(bool& reached, const Lane::Mark& mark);
  static void cuda(bool& reached, const Lane::Mark& mark);
};

}  // namespace agon
