#include "core/gpu.h"

#include "core/cuda/launch.cuh"

namespace agon {

namespace {

thread_local const char* last_op = "nothing yet";

struct OwnedStream {
  cudaStream_t stream = nullptr;
  int device = -1;
  ~OwnedStream() {
    if (stream) cudaStreamDestroy(stream);
  }
};

std::string with_error(const char* what, cudaError_t code) {
  return text(what, ": ", cudaGetErrorString(code), " (", cudaGetErrorName(code), ')');
}

}  // namespace

namespace cuda {

void check_call(cudaError_t code, std::source_location where) {
  if (code == cudaSuccess) [[likely]]
    return;
  cudaGetLastError();  // an error that is not sticky is not reported twice
  throw Error(text(with_error("CUDA", code), "; the last op launched was ", last_op, " [", where.file_name(), ':',
                   where.line(), ']'));
}

void check_launch(const Label& label, dim3 grid, dim3 block, size_t shared) {
  last_op = label.op;
  const cudaError_t code = cudaGetLastError();
  if (code == cudaSuccess) [[likely]]
    return;
  std::string shapes;
  for (int i = 0; i < label.count; ++i) shapes += text(i ? ", " : "", label.shapes[i]);
  throw Error(text(with_error(label.op, code), " (at its launch, or in a kernel before it); shapes ", shapes, "; grid ",
                   grid.x, 'x', grid.y, 'x', grid.z, ", block ", block.x, 'x', block.y, ", ", shared,
                   " bytes of shared memory"));
}

void check_current(Device device) {
  int current = 0;
  check_call(cudaGetDevice(&current));
  check(current == device.index, "memory of ", device, ", but this thread uses cuda:", current,
        " (use_device makes it another)");
}

cudaStream_t stream() {
  // Not the default stream: what another thread (rank) does there would be waited for.
  thread_local OwnedStream own;
  int device = 0;
  check_call(cudaGetDevice(&device));
  if (own.device != device) {
    if (own.stream) cudaStreamDestroy(own.stream);
    own.stream = nullptr;
    check_call(cudaStreamCreateWithFlags(&own.stream, cudaStreamNonBlocking));
    own.device = device;
  }
  return own.stream;
}

void allow_shared(const void* kernel, size_t bytes) {
  check_call(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)));
}

}  // namespace cuda

void FindGpus::cuda(Gpus& gpus) {
  cudaDriverGetVersion(&gpus.driver);
  cudaRuntimeGetVersion(&gpus.runtime);
  const auto version = [](int v) { return text(v / 1000, '.', v % 1000 / 10); };
  if (gpus.driver == 0) {
    gpus.why_none = "no NVIDIA driver is installed";
    return;
  }
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess || count == 0) {
    cudaGetLastError();
    gpus.why_none = code == cudaErrorInsufficientDriver
                        ? text("the driver is for CUDA ", version(gpus.driver), ", this build needs one for ",
                               version(gpus.runtime), ": update the driver")
                        : text("no GPU was found (", cudaGetErrorString(code), ')');
    return;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p{};
    cuda::check_call(cudaGetDeviceProperties(&p, i));
    int clock_khz = 0;
    cuda::check_call(cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, i));
    gpus.found.push_back({.name = p.name,
                          .major = p.major,
                          .minor = p.minor,
                          .memory = int64_t(p.totalGlobalMem),
                          .processors = p.multiProcessorCount,
                          .clock_mhz = clock_khz / 1000,
                          .l2_bytes = p.l2CacheSize});
  }
}

void UseDevice::cuda(Device device) { cuda::check_call(cudaSetDevice(device.index)); }

void Synchronize::cuda(Device) { cuda::check_call(cudaStreamSynchronize(cuda::stream())); }

void FreeMemory::cuda(int64_t& bytes, Device device) {
  cuda::check_current(device);
  size_t free = 0, total = 0;
  cuda::check_call(cudaMemGetInfo(&free, &total));
  bytes = int64_t(free);
}

}  // namespace agon
