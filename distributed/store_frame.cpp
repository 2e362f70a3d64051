#include "distributed/store_frame.h"

#include <algorithm>
#include <array>

namespace agon {

namespace {

constexpr char kMagic[] = {'a', 'g', 'o', 'n'};
constexpr size_t kHeader = 20;

void put(std::string& to, uint32_t number) {
  for (int byte = 0; byte < 4; ++byte) to += char(number >> (8 * byte) & 0xff);
}

uint32_t number_at(const std::string& from, size_t at) {
  uint32_t number = 0;
  for (int byte = 0; byte < 4; ++byte) number |= uint32_t(uint8_t(from[at + byte])) << (8 * byte);
  return number;
}

}  // namespace

std::string encode(const Frame& frame) {
  require(frame.key.size() + frame.value.size() <= kStoreCap, "a store's value '", printable(frame.key), "' has ",
          frame.key.size() + frame.value.size(), " bytes with its name; expected at most ", kStoreCap);
  std::string bytes(kMagic, sizeof kMagic);
  put(bytes, kStoreVersion);
  put(bytes, uint32_t(frame.kind));
  put(bytes, uint32_t(frame.key.size()));
  put(bytes, uint32_t(frame.value.size()));
  return bytes + frame.key + frame.value;
}

std::optional<Frame> take_frame(std::string& arrived) {
  const size_t known = std::min(arrived.size(), sizeof kMagic);
  if (!std::equal(kMagic, kMagic + known, arrived.begin()))
    throw BadFrame("it begins with '" + printable(arrived) + "'");
  if (arrived.size() >= 8 && number_at(arrived, 4) != kStoreVersion)
    throw OtherVersion(text("it speaks version ", number_at(arrived, 4), " of the protocol; expected ", kStoreVersion));
  if (arrived.size() < kHeader) return {};
  const uint32_t kind = number_at(arrived, 8);
  const uint64_t key = number_at(arrived, 12), value = number_at(arrived, 16);
  if (kind > uint32_t(Say::failed)) throw BadFrame(text("it sent a message of the unknown kind ", kind));
  if (key + value > kStoreCap)
    throw BadFrame(text("it announced ", key + value, " bytes; expected at most ", kStoreCap));
  if (arrived.size() < kHeader + key + value) return {};
  Frame frame{Say(kind), arrived.substr(kHeader, key), arrived.substr(kHeader + key, value)};
  arrived.erase(0, kHeader + key + value);
  return frame;
}

std::string hello_value(int rank, int size) {
  std::string value;
  put(value, uint32_t(rank));
  put(value, uint32_t(size));
  return value;
}

RankAndSize read_hello(const std::string& value) {
  if (value.size() != 8) throw BadFrame(text("its greeting has ", value.size(), " bytes; expected 8"));
  return {number_at(value, 0), number_at(value, 4)};
}

bool same_secret(const std::string& given, const std::string& expected) {
  size_t difference = given.size() ^ expected.size();
  for (size_t i = 0; i < given.size(); ++i)
    difference |= uint8_t(given[i]) ^ (expected.empty() ? 1u : uint8_t(expected[i % expected.size()]));
  return difference == 0;
}

std::string printable(const std::string& bytes) {
  std::string shown = bytes.substr(0, 32);
  std::ranges::replace_if(
      shown, [](char c) { return c < ' ' || c > '~'; }, '.');
  return bytes.size() > shown.size() ? shown + "..." : shown;
}

}  // namespace agon
