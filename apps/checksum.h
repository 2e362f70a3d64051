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

  static constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87, kPrime2 = 0xC2B2AE3D27D4EB4F;
  std::array<uint64_t, 4> lanes_{kPrime1 + kPrime2, kPrime2, 0, 0 - kPrime1};
  std::array<unsigned char, 32> rest_{};  // the first total_ % 32 bytes wait for their block
  uint64_t total_ = 0;
};

/// 16 hexadecimal digits.
std::string hexadecimal(uint64_t value);

}  // namespace agon
