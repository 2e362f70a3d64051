#include "distributed/lane.h"

#include <cstring>

#include "core/timer.h"

namespace agon {

void OpenLane::cpu(std::shared_ptr<void>&) {}
void FollowWork::cpu(void*, Lane::Mark&) {}
void SetMark::cpu(void*, Lane::Mark& mark) { MarkTime::cpu(mark); }
void CopyInLane::cpu(void*, void* to, const void* from, size_t bytes) { std::memcpy(to, from, bytes); }
void WorkFollows::cpu(const Lane::Mark&) {}
void MarkReached::cpu(bool& reached, const Lane::Mark&) { reached = true; }

Lane::Lane(Device device) : device_(device) { run<OpenLane>(device, stream_); }

void Lane::follow_work() { run<FollowWork>(device_, stream(), work_); }

void Lane::set(Mark& mark) const { run<SetMark>(device_, stream(), mark); }

void Lane::copy(void* to, const void* from, size_t bytes) const {
  if (bytes) run<CopyInLane>(device_, stream(), to, from, bytes);
}

void Lane::work_follows(Device device, const Mark& mark) { run<WorkFollows>(device, mark); }

bool Lane::reached(Device device, const Mark& mark) {
  bool reached = false;
  run<MarkReached>(device, reached, mark);
  return reached;
}

}  // namespace agon
