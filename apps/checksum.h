#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace agon {

/// XXH64 with seed 0 (Y. Collet, xxHash specification 0.1.1), fed in pieces: the same figure as `xxhsum -H1`. Guards
/// against accidents, not against an attacker.
class Checksum {
 public:
  void update(const void* data, size_t bytes);
  uint64_t value() const;

 private:
  void block(const unsigned char* p);

  // prime 1 + prime 2, prime 2, 0, - prime 1
  std::array<uint64_t, 4> lanes_{0x60EA27EEADC0B5D6, 0xC2B2AE3D27D4EB4F, 0, 0x61C8864E7A143579};
  std::array<unsigned char, 32> rest_{};  // the first total_ % 32 bytes wait for their block
  uint64_t total_ = 0;
};

/// 16 hexadecimal digits.
std::string hexadecimal(uint64_t value);

}  // namespace agon
