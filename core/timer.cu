#include "core/timer.h"

#include "core/cuda/launch.cuh"

namespace agon {

namespace {

cudaEvent_t event_of(const std::shared_ptr<void>& mark) { return static_cast<cudaEvent_t>(mark.get()); }

}  // namespace

void MarkTime::cuda(std::shared_ptr<void>& mark) {
  if (!mark) {
    cudaEvent_t event = nullptr;
    cuda::check_call(cudaEventCreate(&event));
    mark = std::shared_ptr<void>(event, [](void* e) { cudaEventDestroy(static_cast<cudaEvent_t>(e)); });
  }
  cuda::check_call(cudaEventRecord(event_of(mark), cuda::stream()));
}

void TimeBetween::cuda(double& seconds, const std::shared_ptr<void>& from, const std::shared_ptr<void>& to) {
  float milliseconds = 0;
  cuda::check_call(cudaEventSynchronize(event_of(to)));
  cuda::check_call(cudaEventElapsedTime(&milliseconds, event_of(from), event_of(to)));
  seconds = double(milliseconds) / 1e3;
}

}  // namespace agon
