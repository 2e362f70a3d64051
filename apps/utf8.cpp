#include "apps/utf8.h"

#include <array>
#include <cstdint>

namespace agon {

namespace {

uint8_t byte(std::string_view text, size_t i) { return uint8_t(text[i]); }

/// What a first byte asks for: length of the character (0: it cannot begin one) and the range of the second byte.
struct Lead {
  size_t length;
  uint8_t low, high;
};

Lead lead_of(uint8_t b) {
  if (b < 0x80) return {1, 0, 0};
  if (b < 0xC2) return {0, 0, 0};
  if (b < 0xE0) return {2, 0x80, 0xBF};
  if (b == 0xE0) return {3, 0xA0, 0xBF};
  if (b == 0xED) return {3, 0x80, 0x9F};
  if (b < 0xF0) return {3, 0x80, 0xBF};
  if (b == 0xF0) return {4, 0x90, 0xBF};
  if (b < 0xF4) return {4, 0x80, 0xBF};
  if (b == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

/// How many of the first bytes fit one character, and how many that character has.
struct Fit {
  size_t bytes, length;
};

Fit fit(std::string_view text) {
  if (text.empty()) return {0, 0};
  const Lead lead = lead_of(byte(text, 0));
  if (lead.length == 0) return {0, 0};
  size_t i = 1;
  for (; i < lead.length && i < text.size(); ++i) {
    const uint8_t low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
    if (byte(text, i) < low || byte(text, i) > high) return {0, 0};
  }
  return {i, lead.length};
}

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace

size_t utf8_length(std::string_view text) {
  const Fit f = fit(text);
  return f.bytes == f.length ? f.length : 0;
}

char32_t utf8_decode(std::string_view c) {
  if (c.size() == 1) return char32_t(byte(c, 0));
  char32_t n = byte(c, 0) & (0xFFu >> (c.size() + 1));
  for (size_t i = 1; i < c.size(); ++i) n = n << 6 | (byte(c, i) & 0x3Fu);
  return n;
}

bool utf8_unfinished(std::string_view text) {
  const Fit f = fit(text);
  return f.bytes == text.size() && f.bytes < f.length;
}

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  std::string whole;
  size_t at = 0;
  while (at < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(at);
    const size_t n = utf8_length(rest);
    if (n == 0 && utf8_unfinished(rest)) break;
    whole += n ? rest.substr(0, n) : kReplacement;
    at += n ? n : 1;
  }
  pending_.erase(0, at);
  return whole;
}

std::string Utf8Stream::finish() {
  const bool cut = !pending_.empty();
  pending_.clear();
  return std::string(cut ? kReplacement : std::string_view());
}

std::string printable(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t n = utf8_length(text.substr(at));
    const uint8_t b = byte(text, at);
    if (n == 0 || b < 0x20 || b == 0x7F) {
      constexpr std::string_view digits = "0123456789abcdef";
      out += std::string("\\x") + digits[b >> 4] + digits[b & 15];
      ++at;
    } else {
      out += text.substr(at, n);
      at += n;
    }
  }
  return out;
}

}  // namespace agon
