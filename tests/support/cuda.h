#pragma once
#include <doctest/doctest.h>

#include "core/gpu.h"
#include "tests/support/gradient.h"

namespace agon::testing {

/// Whether this build and machine have a GPU to test on (in the preset shim: the CPU plays one). Without one the cases
/// that need it are skipped, which counts and names them.
inline bool has_gpu() {
  static const bool has = !find_gpus().found.empty();
  return has;
}

/// Whether AddressSanitizer watches every lane of a GPU that the CPU plays: the longest cases do less.
#ifdef __SANITIZE_ADDRESS__
inline constexpr bool kSlow = true;
#else
inline constexpr bool kSlow = false;
#endif

/// Makes the order in which the shim's threads and blocks run another one until the end of the scope: results that
/// depend on it are a race. A real GPU has its own ways.
class ThreadOrder {
 public:
  explicit ThreadOrder(uint64_t order);
  ~ThreadOrder();
  ThreadOrder(const ThreadOrder&) = delete;
  ThreadOrder& operator=(const ThreadOrder&) = delete;
};

/// Makes what is recorded on the shim's streams from now on never be reached, or be reached again.
void hold_events(bool hold);

/// The rest of the scope is a case on a GPU.
class OnGpu {
 public:
  OnGpu() { use_device(device_of_case() = {Device::cuda, 0}); }
  ~OnGpu() { device_of_case() = {}; }
  OnGpu(const OnGpu&) = delete;
  OnGpu& operator=(const OnGpu&) = delete;
};

}  // namespace agon::testing

/// A case that needs a GPU; its tensors begin on the host: see there().
#define GPU_CASE_NAMED(function, name)                                 \
  static void function();                                              \
  TEST_CASE("cuda: " name* doctest::skip(!agon::testing::has_gpu())) { \
    const agon::testing::OnGpu on_gpu;                                 \
    function();                                                        \
  }                                                                    \
  static void function()
#define GPU_CASE(name) GPU_CASE_NAMED(DOCTEST_ANONYMOUS(gpu_case_), name)

/// A case written once, run on the CPU and, under the name "cuda: ...", on a GPU.
#define DEVICE_CASE_NAMED(function, name)                              \
  static void function();                                              \
  TEST_CASE(name) { function(); }                                      \
  TEST_CASE("cuda: " name* doctest::skip(!agon::testing::has_gpu())) { \
    const agon::testing::OnGpu on_gpu;                                 \
    function();                                                        \
  }                                                                    \
  static void function()
#define DEVICE_CASE(name) DEVICE_CASE_NAMED(DOCTEST_ANONYMOUS(device_case_), name)
