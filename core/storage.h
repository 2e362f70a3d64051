#pragma once
#include <cstddef>
#include <memory>

#include "core/device.h"

namespace agon {

/// Blocks start at multiples of this many bytes: a cache line pair, and what 512-bit and TMA loads want.
inline constexpr size_t kAlignment = 256;

/// Rounds up to a multiple of kAlignment; 0 becomes kAlignment, so every block has an address of its own.
constexpr size_t round_up(size_t bytes) {
  return bytes == 0 ? kAlignment : (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// A GPU has too little memory left: something to configure otherwise.
class OutOfMemory : public UserError {
 public:
  using UserError::UserError;
};

/// An owned block of memory on a device, aligned to kAlignment; contents undefined.
/// Throws Error, on a GPU OutOfMemory, naming the bytes wanted when there is no memory left.
std::shared_ptr<std::byte> allocate_block(Device device, size_t bytes);

struct Allocate {
  static void cpu(std::shared_ptr<std::byte>& block, Device device, size_t bytes);
  static void cuda(std::shared_ptr<std::byte>& block, Device device, size_t bytes);
};

}  // namespace agon
