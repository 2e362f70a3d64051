#pragma once
#include <ostream>

#include "core/error.h"

namespace agon {

#ifdef AGON_WITH_CUDA
inline constexpr bool kHasCuda = true;
#else
inline constexpr bool kHasCuda = false;
#endif

struct Device {
  enum Kind { cpu, cuda } kind = cpu;
  int index = 0;
  bool operator==(const Device&) const = default;
  friend std::ostream& operator<<(std::ostream& os, const Device& d) {
    return d.kind == cpu ? os << "cpu" : os << "cuda:" << d.index;
  }
};

/// Runs the kernel `K` on `device`: K::cpu(args...) or K::cuda(args...).
/// Without CUDA the second call is discarded, so nothing has to be stubbed out.
template <class K, class... Args>
void run(Device device, Args&&... args) {
  if (device.kind == Device::cpu) return K::cpu(args...);
  if constexpr (kHasCuda && requires { &K::cuda; })
    return K::cuda(args...);  // by name: a wrong signature does not compile
  check(false, "no version of the kernel for ", device, kHasCuda ? "" : ": this build has no CUDA");
}

}  // namespace agon
