#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/device.h"

namespace agon {

struct Gpu {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int64_t memory = 0;        // bytes in all
  int processors = 0;        // streaming multiprocessors
  int clock_mhz = 0;         // the highest
  int64_t l2_bytes = 0;
};

/// The GPUs this program can use, and, where there is none, why.
struct Gpus {
  std::vector<Gpu> found;
  std::string why_none;
  int driver = 0, runtime = 0;  // 13000: version 13.0
};
Gpus find_gpus();

/// Makes `device` this thread's. UserError where there is no such GPU: a build without CUDA, no driver or too old a
/// one, no GPU, too old a GPU. Nothing for a CPU.
void use_device(Device device);

/// Waits until the device has done all this thread gave it. Throws Error when something went wrong there.
void synchronize(Device device);

/// Whether a GPU's products of f32 may round their operands to TF32 (10 bits of fraction): no unless told so. For all
/// threads; a CPU never does.
void set_tf32(bool allowed);
bool tf32();

/// Bytes free on a GPU now.
int64_t free_memory(Device device);

struct FindGpus {
  static void cuda(Gpus& gpus);
};
struct UseDevice {
  static void cpu(Device device);
  static void cuda(Device device);
};
struct Synchronize {
  static void cpu(Device device);
  static void cuda(Device device);
};
struct FreeMemory {
  static void cpu(int64_t& bytes, Device device);
  static void cuda(int64_t& bytes, Device device);
};

/// The oldest GPU the kernels are compiled for: 8.0, Ampere.
inline constexpr int kOldestMajor = 8;

}  // namespace agon
