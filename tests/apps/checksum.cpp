#include "apps/checksum.h"

#include <doctest/doctest.h>

#include <string>

using namespace agon;

namespace {
std::string sum(const std::string& s, size_t piece) {
  Checksum c;
  for (size_t i = 0; i < s.size(); i += piece) c.update(s.data() + i, std::min(piece, s.size() - i));
  return hexadecimal(c.value());
}
}  // namespace

TEST_CASE("checksum: the figures of xxHash") {
  CHECK(sum("", 1) == "ef46db3751d8e999");
  CHECK(sum("a", 1) == "d24ec4f1a98c6e5b");
  CHECK(sum("abc", 3) == "44bc2cf5ad770999");
  CHECK(sum("xxhash", 6) == "32dd38952c4bc720");
  CHECK(sum("Nobody inspects the spammish repetition", 39) == "fbcea83c8a378bf1");
}

TEST_CASE("checksum: pieces do not matter") {
  std::string s;
  for (int i = 0; i < 1000; ++i) s += char(i * 7);
  for (size_t n : {0, 1, 31, 32, 33, 63, 64, 65, 1000})
    for (size_t piece : {1, 3, 8, 31, 32, 33, 100}) CHECK(sum(s.substr(0, n), piece) == sum(s.substr(0, n), 1000));
}
