#include "core/gpu.h"

#include <atomic>

namespace agon {

namespace {
std::atomic<bool> tf32_allowed = false;
}

void set_tf32(bool allowed) { tf32_allowed = allowed; }
bool tf32() { return tf32_allowed; }

void UseDevice::cpu(Device) {}
void Synchronize::cpu(Device) {}
void FreeMemory::cpu(int64_t&, Device device) { check(false, "free_memory is of GPUs, asked for ", device); }

Gpus find_gpus() {
  Gpus gpus;
  if constexpr (kHasCuda)
    FindGpus::cuda(gpus);
  else
    gpus.why_none = "this build has no CUDA (preset cuda has)";
  return gpus;
}

void use_device(Device device) {
  if (device.kind == Device::cuda) {
    const Gpus gpus = find_gpus();
    require(!gpus.found.empty(), "device = \"cuda\": ", gpus.why_none);
    require(device.index >= 0 && size_t(device.index) < gpus.found.size(), "device = \"", device,
            "\": this machine has ", gpus.found.size(), " GPU(s), counted from 0");
    const Gpu& gpu = gpus.found[size_t(device.index)];
    require(gpu.major >= kOldestMajor, "device = \"", device, "\": ", gpu.name, " has compute capability ", gpu.major,
            '.', gpu.minor, ", the kernels need ", kOldestMajor, ".0 or newer");
  }
  run<UseDevice>(device, device);
}

void synchronize(Device device) { run<Synchronize>(device, device); }

int64_t free_memory(Device device) {
  int64_t bytes = 0;
  run<FreeMemory>(device, bytes, device);
  return bytes;
}

}  // namespace agon
