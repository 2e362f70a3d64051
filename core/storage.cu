#include "core/cuda/launch.cuh"
#include "core/gpu.h"
#include "core/storage.h"

namespace agon {

void Allocate::cuda(std::shared_ptr<std::byte>& block, Device device, size_t bytes) {
  cuda::check_current(device);
  void* p = nullptr;
  const cudaError_t code = cudaMalloc(&p, round_up(bytes));
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw OutOfMemory(text("out of memory: ", bytes, " bytes wanted on ", device, ", ", free_memory(device),
                           " are free; a smaller train.micro_batch takes less (--dry-run shows what takes how much)"));
  }
  cuda::check_call(code);
  // Freeing waits for the work that may still use the block.
  block = std::shared_ptr<std::byte>(static_cast<std::byte*>(p), [](std::byte* q) { cudaFree(q); });
}

}  // namespace agon
