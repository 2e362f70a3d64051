#include "core/arena.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/profile.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__  // clang's way of saying it
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace agon {

namespace {
thread_local Arena* current_arena = nullptr;
}

Arena::Arena(size_t bytes, Device device) : device_(device), bytes_(bytes ? round_up(bytes) : 0) {
  if (!bytes_) return;
  slab_ = allocate_block(device_, bytes_);
  if (device_.kind == Device::cpu) {
    std::byte* p = slab_.get();
    ASAN_POISON_MEMORY_REGION(p, bytes_);
    slab_ = std::shared_ptr<std::byte>(
        p, [keep = slab_, size = bytes_](std::byte* q) { ASAN_UNPOISON_MEMORY_REGION(q, size); });
  }
}

std::shared_ptr<std::byte> Arena::allocate(size_t bytes) {
  const size_t n = round_up(bytes), at = place(n);
  const char* part = Part::current();
  live_ += n;
  asked_ += n;
  live_of_part_[part] += n;
  if (live_ > peak_) {
    peak_ = live_;
    peak_of_part_ = live_of_part_;
  }
  if (!slab_ || at + n > bytes_) {
    std::shared_ptr<std::byte> block;
    try {
      block = allocate_block(device_, n);
    } catch (const OutOfMemory& e) { throw OutOfMemory(refused(e, at, n, part)); } catch (const Error& e) {
      throw Error(refused(e, at, n, part), e.exit_code());
    }
    if (slab_) spilled_ += n;
    std::byte* p = block.get();
    return {p, [this, at, n, part, block = std::move(block)](std::byte*) { release(at, n, part); }};
  }
  std::byte* p = slab_.get() + at;
  if (device_.kind == Device::cpu) ASAN_UNPOISON_MEMORY_REGION(p, bytes);  // the padding stays poisoned
  return {p, [this, at, n, part](std::byte* q) {
            if (device_.kind == Device::cpu) ASAN_POISON_MEMORY_REGION(q, n);
            release(at, n, part);
          }};
}

/// Takes back a request that found no memory; what to say of it.
std::string Arena::refused(const Error& e, size_t at, size_t n, const char* part) {
  const std::string held = peak_report();
  release(at, n, part);
  return text(e.what(), "; with them the parts of the program would have held, at the peak:\n", held);
}

size_t Arena::place(size_t n) {
  auto best = holes_.end();
  for (auto it = holes_.begin(); it != holes_.end(); ++it)
    if (it->second >= n && (best == holes_.end() || it->second < best->second)) best = it;
  if (best == holes_.end()) {
    const size_t at = end_;
    end_ += n;
    extent_ = std::max(extent_, end_);
    return at;
  }
  const auto [at, size] = *best;
  holes_.erase(best);
  if (size > n) holes_[at + n] = size - n;
  return at;
}

void Arena::release(size_t at, size_t n, const char* part) {
  live_ -= n;
  live_of_part_[part] -= n;
  auto it = holes_.emplace(at, n).first;
  if (auto next = std::next(it); next != holes_.end() && at + n == next->first) {
    it->second += next->second;
    holes_.erase(next);
  }
  if (it != holes_.begin())
    if (auto before = std::prev(it); before->first + before->second == it->first) {
      before->second += it->second;
      holes_.erase(it);
      it = before;
    }
  if (it->first + it->second == end_) {
    end_ = it->first;
    holes_.erase(it);
  }
}

void Arena::reset_figures() {
  peak_ = live_;
  extent_ = end_;
  asked_ = spilled_ = 0;
  peak_of_part_ = live_of_part_;
}

std::string Arena::peak_report() const {
  std::vector<std::pair<size_t, std::string_view>> parts;
  for (const auto& [part, bytes] : peak_of_part_)
    if (bytes) parts.emplace_back(bytes, part.empty() ? std::string_view("(elsewhere)") : part);
  std::ranges::sort(parts, std::greater());
  std::string report;
  for (const auto& [bytes, part] : parts) report += text("  ", part, ": ", bytes, " bytes\n");
  return report;
}

std::shared_ptr<std::byte> allocate(Device device, size_t bytes) {
  if (current_arena && current_arena->device() == device) return current_arena->allocate(bytes);
  return allocate_block(device, bytes);
}

Arena::Scope::Scope(Arena& arena) : previous_(current_arena) { current_arena = &arena; }
Arena::Scope::~Scope() { current_arena = previous_; }

Arena::Outside::Outside() : previous_(std::exchange(current_arena, nullptr)) {}
Arena::Outside::~Outside() { current_arena = previous_; }

}  // namespace agon
