#include "core/arena.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "core/copy.h"
#include "core/profile.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

using namespace agon;

namespace {

using Block = std::shared_ptr<std::byte>;

/// A step: a fixed pseudo-random sequence of requests and returns of many sizes. Returns the addresses in order.
std::vector<const std::byte*> step(Arena& arena, uint64_t seed, size_t* most = nullptr) {
  std::mt19937_64 random(seed);
  std::vector<const std::byte*> addresses;
  std::vector<std::pair<Block, size_t>> held;
  size_t live = 0;
  for (int i = 0; i < 300; ++i) {
    if (!held.empty() && random() % 5 < 2) {
      const size_t gone = random() % held.size();
      live -= round_up(held[gone].second);
      held.erase(held.begin() + long(gone));
    } else {
      const size_t bytes = random() % 7 == 0 ? random() % 100'000 : random() % 3000;
      held.emplace_back(arena.allocate(bytes), bytes);
      std::memset(held.back().first.get(), int(i % 251), bytes);
      addresses.push_back(held.back().first.get());
      live += round_up(bytes);
    }
    if (most) *most = std::max(*most, live);
  }
  return addresses;
}

}  // namespace

TEST_CASE("arena: a measured extent is exactly enough, and every later step has the same addresses") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Arena measure;
    size_t most = 0;
    step(measure, seed, &most);
    CHECK(measure.live() == 0);
    CHECK(measure.peak() == most);
    CHECK(measure.extent() >= most);
    CHECK(measure.spilled() == 0);

    Arena placed(measure.extent());
    CHECK(placed.bytes() == measure.extent());
    const auto first = step(placed, seed), second = step(placed, seed);
    CHECK(first == second);
    CHECK(placed.extent() == measure.extent());
    CHECK(placed.spilled() == 0);
    CHECK(placed.live() == 0);
    CHECK(placed.asked() == 2 * measure.asked());
    // In one slab, and the whole of it.
    CHECK(*std::ranges::max_element(first) < *std::ranges::min_element(first) + placed.bytes());
  }
}

TEST_CASE("arena: one block less than the extent spills, and still says what would have sufficed") {
  Arena measure;
  step(measure, 3);
  Arena tight(measure.extent() - kAlignment);
  step(tight, 3);
  CHECK(tight.spilled() > 0);
  CHECK(tight.extent() == measure.extent());
  CHECK(tight.live() == 0);
}

TEST_CASE("arena: the smallest hole that fits, the open end last, neighbours merged") {
  Arena arena(100 * kAlignment);
  const auto blocks = [&](size_t n) { return arena.allocate(n * kAlignment); };
  Block a = blocks(4), b = blocks(1), c = blocks(2), d = blocks(1), e = blocks(3), f = blocks(1);
  const std::byte *at_a = a.get(), *at_c = c.get(), *at_e = e.get();
  a = c = e = {};  // holes of 4, 2 and 3
  const Block two = blocks(2), three = blocks(3), one = blocks(1);
  CHECK(two.get() == at_c);
  CHECK(three.get() == at_e);
  CHECK(one.get() == at_a);
  const Block rest = blocks(3);
  CHECK(rest.get() == at_a + kAlignment);
  const Block beyond = blocks(1);
  CHECK(beyond.get() == f.get() + kAlignment);
  CHECK(arena.extent() == 13 * kAlignment);
  b = d = {};
  Arena merges(100 * kAlignment);
  Block x = merges.allocate(kAlignment), y = merges.allocate(kAlignment), z = merges.allocate(kAlignment),
        keep = merges.allocate(1);
  const std::byte* at_x = x.get();
  x = {}, z = {}, y = {};
  CHECK(merges.allocate(3 * kAlignment).get() == at_x);
  keep = {};
  CHECK(merges.allocate(50 * kAlignment).get() == at_x);  // the end has come back too
}

TEST_CASE("arena: figures start anew from what is live") {
  Arena arena;
  const Block kept = arena.allocate(1000);
  arena.allocate(5000);
  CHECK(arena.peak() == round_up(1000) + round_up(5000));
  arena.reset_figures();
  CHECK(arena.peak() == round_up(1000));
  CHECK(arena.extent() == round_up(1000));
  CHECK(arena.asked() == 0);
  CHECK(arena.live() == round_up(1000));
}

TEST_CASE("arena: the report names who held memory at the peak, largest first") {
  Arena arena;
  {
    const Part router("router");
    const Block r = arena.allocate(256);
    const Part experts("experts");
    const Block e = arena.allocate(1024);
  }
  const Block later = arena.allocate(512);
  CHECK(arena.peak_report() == "  experts: 1024 bytes\n  router: 256 bytes\n");
  const Block more = arena.allocate(2048);
  CHECK(arena.peak_report() == "  (elsewhere): 2560 bytes\n");
}

TEST_CASE("arena: a failed request says who holds memory and leaves nothing behind") {
  Arena arena;
  const Part part("attention");
  const Block held = arena.allocate(256);
  try {
    arena.allocate(size_t(1) << 60);
    FAIL("a block of 2^60 bytes");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("out of memory: 1152921504606846976 bytes wanted") == 0);
    CHECK(std::string(e.what()).find("attention: ") != std::string::npos);
  }
  CHECK(arena.live() == 256);
  CHECK(arena.allocate(256).get() != held.get());
}

TEST_CASE("arena: tensors come from the innermost scope of their thread") {
  Arena outer, inner;
  const Tensor before({10}, DType::f32);
  {
    const Arena::Scope one(outer);
    const Tensor a({10}, DType::f32);
    {
      const Arena::Scope two(inner);
      const Tensor b({10}, DType::f32);
      CHECK(inner.live() == 256);
    }
    const Tensor c({10}, DType::f32);
    CHECK(outer.live() == 512);
    CHECK(inner.live() == 0);
  }
  const Tensor after({10}, DType::f32);
  CHECK(outer.asked() == 512);
}

TEST_CASE("arena: blocks are aligned, distinct and keep what was written") {
  Arena arena(1 << 16);
  std::vector<Block> blocks;
  for (size_t n : {0, 1, 255, 256, 257, 4000}) {
    blocks.push_back(arena.allocate(n));
    CHECK(reinterpret_cast<uintptr_t>(blocks.back().get()) % kAlignment == 0);
    std::memset(blocks.back().get(), int(blocks.size()), n);
  }
  CHECK(blocks[5].get()[3999] == std::byte(6));
  CHECK(blocks[4].get()[256] == std::byte(5));
  CHECK(blocks[1].get()[0] == std::byte(2));
}

#if defined(__SANITIZE_ADDRESS__)
TEST_CASE("arena: what is free and what pads a block is poisoned") {
  Arena arena(1 << 16);
  Block a = arena.allocate(100);
  std::byte* p = a.get();
  CHECK(!__asan_region_is_poisoned(p, 100));
  CHECK(__asan_address_is_poisoned(p + 104));
  CHECK(__asan_address_is_poisoned(p + kAlignment));
  a = {};
  CHECK(__asan_address_is_poisoned(p));
}
#endif

TEST_CASE("arena: what is made outside outlives the step") {
  Arena arena;
  Tensor kept;
  {
    const Arena::Scope scope(arena);
    {
      const Arena::Outside outside;
      kept = Tensor({100}, DType::f32);
    }
    CHECK(arena.live() == 0);
    const Tensor inside({100}, DType::f32);
    CHECK(arena.live() > 0);
  }
  CHECK(arena.live() == 0);
  CHECK(kept.zero().data<float>()[99] == 0);
}
