#include "core/storage.h"

#include <doctest/doctest.h>

#include <cstring>

using namespace agon;

TEST_CASE("storage: sizes round up, and nothing has an address of its own") {
  CHECK(round_up(0) == kAlignment);
  CHECK(round_up(1) == kAlignment);
  CHECK(round_up(kAlignment) == kAlignment);
  CHECK(round_up(kAlignment + 1) == 2 * kAlignment);
}

TEST_CASE("storage: blocks are aligned, writable to the end and distinct") {
  const auto a = allocate_block({}, 1000), b = allocate_block({}, 0), c = allocate_block({}, 0);
  for (const auto& block : {a, b, c}) CHECK(reinterpret_cast<uintptr_t>(block.get()) % kAlignment == 0);
  CHECK(b != c);
  std::memset(a.get(), 7, 1000);
  CHECK(a.get()[999] == std::byte(7));
}

TEST_CASE("storage: says how much was wanted when there is no memory") {
  try {
    allocate_block({}, size_t(1) << 60);
    FAIL("a block of 2^60 bytes");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("out of memory: 1152921504606846976 bytes wanted") == 0);
  }
}
