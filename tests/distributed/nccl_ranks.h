#pragma once
#include <doctest/doctest.h>

#include "core/gpu.h"
#include "distributed/nccl.h"
#include "distributed/nccl_open.h"
#include "tests/distributed/fake_nccl.h"
#include "tests/support/ranks.h"

namespace agon::testing {

/// Where the fake can reach a device's memory: the CPU, and the GPU of the preset shim.
inline std::vector<Device> devices_of_fake() {
#ifdef AGON_SHIM
  return {{Device::cpu, 0}, {Device::cuda, 0}};
#else
  return {{Device::cpu, 0}};
#endif
}

/// A rank of `control`'s with the fake in place of NCCL.
inline std::unique_ptr<Communicator> fake_rank(Communicator& control, Device device,
                                               std::chrono::milliseconds deadline = std::chrono::seconds(60),
                                               bool send_to_self = false) {
  use_device(device);
  NcclOptions options;
  options.device = device;
  options.control = control.split(0, control.rank());
  options.deadline = deadline;
  options.send_to_self = send_to_self;
  options.library = &FakeNccl::library();
  return make_nccl_communicator(std::move(options));
}

/// Runs body on ranks that are threads, on each device of the fake.
inline void on_fake_ranks(int n, const std::function<void(Communicator&, Device)>& body) {
  for (const Device device : devices_of_fake()) {
    CAPTURE(device);
    FakeNccl::fresh();
    run_on_threads(n, [&](Communicator& control) { body(*fake_rank(control, device), device); });
  }
}

/// Whether there is a GPU that NCCL can use: not the shim's.
inline bool has_gpu_for_nccl() {
  return devices_of_fake().size() == 1 && !find_gpus().found.empty() && nccl_here().compare(0, 5, "none:") != 0;
}

}  // namespace agon::testing
