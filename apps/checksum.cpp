#include "apps/checksum.h"

#include <bit>
#include <cstring>

namespace agon {

namespace {
constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87, kPrime2 = 0xC2B2AE3D27D4EB4F, kPrime3 = 0x165667B19E3779F9,
                   kPrime4 = 0x85EBCA77C2B2AE63, kPrime5 = 0x27D4EB2F165667C5;

template <class T>
T word(const unsigned char* p) {
  static_assert(std::endian::native == std::endian::little);
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

uint64_t round_of(uint64_t lane, uint64_t input) { return std::rotl(lane + input * kPrime2, 31) * kPrime1; }
}  // namespace

void Checksum::block(const unsigned char* p) {
  for (size_t i = 0; i < 4; ++i) lanes_[i] = round_of(lanes_[i], word<uint64_t>(p + 8 * i));
}

void Checksum::update(const void* data, size_t bytes) {
  if (bytes == 0) return;
  const auto* p = static_cast<const unsigned char*>(data);
  const size_t waiting = total_ % 32, take = waiting ? std::min(bytes, 32 - waiting) : 0;
  total_ += bytes;
  std::memcpy(rest_.data() + waiting, p, take);
  if (waiting && waiting + take == 32) block(rest_.data());
  p += take;
  bytes -= take;
  for (; bytes >= 32; bytes -= 32, p += 32) block(p);
  if (bytes) std::memcpy(rest_.data(), p, bytes);
}

uint64_t Checksum::value() const {
  uint64_t h = kPrime5;
  if (total_ >= 32) {
    h = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
    for (uint64_t lane : lanes_) h = (h ^ round_of(0, lane)) * kPrime1 + kPrime4;
  }
  h += total_;
  const unsigned char* p = rest_.data();
  const unsigned char* end = p + total_ % 32;
  for (; end - p >= 8; p += 8) h = std::rotl(h ^ round_of(0, word<uint64_t>(p)), 27) * kPrime1 + kPrime4;
  if (end - p >= 4) {
    h = std::rotl(h ^ word<uint32_t>(p) * kPrime1, 23) * kPrime2 + kPrime3;
    p += 4;
  }
  for (; p < end; ++p) h = std::rotl(h ^ *p * kPrime5, 11) * kPrime1;
  h = (h ^ (h >> 33)) * kPrime2;
  h = (h ^ (h >> 29)) * kPrime3;
  return h ^ (h >> 32);
}

std::string hexadecimal(uint64_t value) {
  std::string digits(16, '0');
  for (size_t i = 16; i-- > 0; value >>= 4) digits[i] = "0123456789abcdef"[value & 15];
  return digits;
}

}  // namespace agon
