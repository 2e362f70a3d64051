#include "distributed/lane.h"

#include "core/cuda/launch.cuh"
#include "core/timer.h"

namespace agon {

namespace {

cudaEvent_t event_of(const Lane::Mark& mark) { return static_cast<cudaEvent_t>(mark.get()); }
cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

void OpenLane::cuda(std::shared_ptr<void>& stream) {
  cudaStream_t made = nullptr;
  cuda::check_call(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking));
  stream = std::shared_ptr<void>(made, [](void* s) { cudaStreamDestroy(stream_of(s)); });
}

void FollowWork::cuda(void* stream, Lane::Mark& mark) {
  MarkTime::cuda(mark);
  cuda::check_call(cudaStreamWaitEvent(stream_of(stream), event_of(mark), 0));
}

void SetMark::cuda(void* stream, Lane::Mark& mark) {
  if (!mark) MarkTime::cuda(mark);  // makes it
  cuda::check_call(cudaEventRecord(event_of(mark), stream_of(stream)));
}

void CopyInLane::cuda(void* stream, void* to, const void* from, size_t bytes) {
  cuda::check_call(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(stream)));
}

void WorkFollows::cuda(const Lane::Mark& mark) {
  cuda::check_call(cudaStreamWaitEvent(cuda::stream(), event_of(mark), 0));
}

void MarkReached::cuda(bool& reached, const Lane::Mark& mark) {
  const cudaError_t code = cudaEventQuery(event_of(mark));
  reached = code == cudaSuccess;
  if (code != cudaErrorNotReady) return cuda::check_call(code);
  cudaGetLastError();
}

}  // namespace agon
