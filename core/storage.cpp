#include "core/storage.h"

#include <cstdlib>

namespace agon {

void Allocate::cpu(std::shared_ptr<std::byte>& block, Device, size_t bytes) {
  auto* p = static_cast<std::byte*>(std::aligned_alloc(kAlignment, round_up(bytes)));
  check(p != nullptr, "out of memory: ", bytes, " bytes wanted on the host");
  block = std::shared_ptr<std::byte>(p, [](std::byte* q) { std::free(q); });
}

std::shared_ptr<std::byte> allocate_block(Device device, size_t bytes) {
  std::shared_ptr<std::byte> block;
  run<Allocate>(device, block, device, bytes);
  return block;
}

}  // namespace agon
