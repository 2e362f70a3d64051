#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <vector>

#include <cuda_runtime.h>

#include "core/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#else
#define __sanitizer_start_switch_fiber(...) ((void)0)
#define __sanitizer_finish_switch_fiber(...) ((void)0)
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

// Saves what a function must keep, stores the stack pointer in *from and goes on where `to` was stored.
extern "C" void agon_shim_switch(void** from, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.globl agon_shim_switch
.type agon_shim_switch, @function
agon_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size agon_shim_switch, .-agon_shim_switch
)");
#else
#error "the shim's fibers are written for x86-64"
#endif

namespace shim {

namespace {

constexpr size_t kStack = 256 * 1024;

enum class State { ready, at_block_barrier, at_warp_barrier, done };

struct Thread {
  dim3 index;
  State state = State::ready;
  int fiber = -1;
  unsigned mask = 0;  // of the warp barrier it waits at
  bool parity = false;
};

struct Fiber {
  std::unique_ptr<std::byte[]> stack{new std::byte[kStack]};
  void* pointer = nullptr;
  void* fake = nullptr;  // AddressSanitizer's
};

struct Warp {
  alignas(16) std::byte slots[2][32 * 64];
  unsigned waiting = 0;
};

/// One grid at a time: what kernels call `static` is shared by all blocks.
struct Machine {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<int> free_fibers, order;
  std::vector<std::byte> shared;
  const std::function<void()>* kernel = nullptr;
  int current = -1;                // thread that runs
  size_t next = 0;                 // position in `order` of the next thread that has not begun
  void* scheduler = nullptr;       // stack pointer
  void* scheduler_fake = nullptr;  // AddressSanitizer's
  const void* scheduler_bottom = nullptr;
  size_t scheduler_size = 0;
  std::exception_ptr error;
  uint64_t seed = 0;

  static void enter();
  void start(int fiber);
  void resume(int fiber);
  void wait(State state);
  void block();
  bool release();
  void arrange(std::vector<int>& list) const;
};

std::mutex one_grid;
Machine machine;

/// Runs threads one after the other, so that a kernel without barriers needs one fiber; a thread that waits keeps it.
void Machine::enter() {
  Machine& m = machine;
  __sanitizer_finish_switch_fiber(nullptr, &m.scheduler_bottom, &m.scheduler_size);
  const int fiber = m.threads[size_t(m.current)].fiber;
  for (;;) {
    Thread& t = m.threads[size_t(m.current)];
    threadIdx = t.index;
    try {
      (*m.kernel)();
    } catch (...) {
      if (!m.error) m.error = std::current_exception();
    }
    m.threads[size_t(m.current)].state = State::done;
    if (m.error || m.next == m.order.size()) break;
    m.current = m.order[m.next++];
    m.threads[size_t(m.current)].fiber = fiber;
  }
  m.free_fibers.push_back(fiber);
  m.current = -1;
  Fiber& f = *m.fibers[size_t(fiber)];
  __sanitizer_start_switch_fiber(nullptr, m.scheduler_bottom, m.scheduler_size);
  agon_shim_switch(&f.pointer, m.scheduler);
}

void Machine::start(int fiber) {
  Fiber& f = *fibers[size_t(fiber)];
  auto top = reinterpret_cast<uintptr_t>(f.stack.get() + kStack) & ~uintptr_t(15);
  auto* words = reinterpret_cast<void**>(top) - 8;  // six registers, where to return to, and one for alignment
  std::fill(words, words + 8, nullptr);
  words[6] = reinterpret_cast<void*>(&Machine::enter);
  f.pointer = words;
  f.fake = nullptr;
  resume(fiber);
}

void Machine::resume(int fiber) {
  Fiber& f = *fibers[size_t(fiber)];
  __sanitizer_start_switch_fiber(&scheduler_fake, f.stack.get(), kStack);
  agon_shim_switch(&scheduler, f.pointer);
  __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
}

void Machine::wait(State state) {
  const int self = current;
  Thread& t = threads[size_t(self)];
  t.state = state;
  Fiber& f = *fibers[size_t(t.fiber)];
  __sanitizer_start_switch_fiber(&f.fake, scheduler_bottom, scheduler_size);
  agon_shim_switch(&f.pointer, scheduler);
  __sanitizer_finish_switch_fiber(f.fake, &scheduler_bottom, &scheduler_size);
  current = self;
  threadIdx = t.index;
  if (error) throw error;  // unwinds the other threads of a failed block
}

/// Lets go what waits for nothing any more; false when nothing does.
bool Machine::release() {
  bool any = false, all_at_barrier = true;
  for (size_t n = 0; n < warps.size(); ++n) {
    // In a changed order one warp goes on alone until it must wait for others: a barrier of the block that is missing
    // shows.
    if (any && seed > 0) break;
    const size_t w = seed > 1 ? warps.size() - 1 - n : n;
    const size_t first = 32 * w, last = std::min(first + 32, threads.size());
    unsigned waiting = 0, done = 0;
    for (size_t i = first; i < last; ++i) {
      waiting |= unsigned(threads[i].state == State::at_warp_barrier) << (i - first);
      done |= unsigned(threads[i].state == State::done) << (i - first);
    }
    if (last - first < 32) done |= ~0u << (last - first);
    for (size_t i = first; i < last; ++i)
      if (threads[i].state == State::at_warp_barrier && (threads[i].mask & done) != 0) {
        error = std::make_exception_ptr(agon::Error("a lane that has ended is in the mask of a warp operation"));
        return true;
      } else if (threads[i].state == State::at_warp_barrier && (threads[i].mask & ~waiting) == 0) {
        bool same = true;
        for (size_t j = first; j < last; ++j)
          if (threads[i].mask >> (j - first) & 1u && threads[j].state == State::at_warp_barrier)
            same = same && threads[j].mask == threads[i].mask;
        if (!same) continue;
        const unsigned mask = threads[i].mask;
        for (size_t j = first; j < last; ++j)
          if (mask >> (j - first) & 1u && threads[j].state == State::at_warp_barrier) threads[j].state = State::ready;
        any = true;
      }
  }
  if (any) return true;
  for (const Thread& t : threads)
    all_at_barrier = all_at_barrier && (t.state == State::at_block_barrier || t.state == State::done);
  if (!all_at_barrier) return false;
  for (Thread& t : threads)
    if (t.state == State::at_block_barrier) t.state = State::ready, any = true;
  return any;
}

void Machine::arrange(std::vector<int>& list) const {
  std::iota(list.begin(), list.end(), 0);
  if (seed == 1) std::ranges::reverse(list);
  if (seed > 1) std::shuffle(list.begin(), list.end(), std::mt19937_64(seed));
}

void Machine::block() {
  order.resize(threads.size());
  arrange(order);
  next = 0;
  for (Thread& t : threads) t.state = State::ready, t.fiber = -1, t.parity = false;
  const auto take_fiber = [&] {
    if (free_fibers.empty()) {
      fibers.push_back(std::make_unique<Fiber>());
      free_fibers.push_back(int(fibers.size()) - 1);
    }
    const int fiber = free_fibers.back();
    free_fibers.pop_back();
    return fiber;
  };
  while (!error && next < order.size()) {
    current = order[next++];
    const int fiber = threads[size_t(current)].fiber = take_fiber();
    start(fiber);
  }
  for (;;) {
    bool waits = false;
    for (const Thread& t : threads)
      waits = waits || t.state == State::at_block_barrier || t.state == State::at_warp_barrier;
    if (!waits) break;
    if (!error && !release())
      error = std::make_exception_ptr(agon::Error("threads of a block wait for each other for ever"));
    for (const int i : order) {
      Thread& t = threads[size_t(i)];
      const bool begun = t.fiber >= 0 && t.state != State::done;
      if (begun && (error || t.state == State::ready)) {
        current = i;
        resume(t.fiber);
      }
    }
    if (error) {
      const bool left =
          std::ranges::any_of(threads, [](const Thread& t) { return t.fiber >= 0 && t.state != State::done; });
      if (!left) break;
    }
  }
}

}  // namespace

void set_order(uint64_t order) { machine.seed = order; }
void* dynamic_shared() {
  return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(machine.shared.data()) + 127) & ~uintptr_t(127));
}
int lane() { return machine.current % 32; }

void block_barrier() { machine.wait(State::at_block_barrier); }

const std::byte* exchange(unsigned mask, const void* mine, size_t bytes) {
  agon::check(bytes <= 64, "the shim exchanges at most 64 bytes of a lane, asked for ", bytes);
  Thread& t = machine.threads[size_t(machine.current)];
  agon::check(mask >> lane() & 1u, "lane ", lane(), " is not in the mask of the warp operation it calls");
  std::byte* const slots = machine.warps[size_t(machine.current) / 32].slots[t.parity];
  // Two sets of slots in turn: who writes one again has seen all read it, at the barrier between.
  t.parity = !t.parity;
  if (bytes) std::memcpy(slots + 64 * lane(), mine, bytes);
  t.mask = mask;
  machine.wait(State::at_warp_barrier);
  return slots;
}

void run(dim3 grid, dim3 block, size_t shared, const std::function<void()>& kernel) {
  const std::lock_guard lock(one_grid);
  Machine& m = machine;
  agon::check(block.x * block.y * block.z <= 1024 && block.x * block.y * block.z > 0 && shared <= 227 * 1024,
              "a block of ", block.x, " x ", block.y, " x ", block.z, " threads and ", shared,
              " bytes of shared memory: no GPU runs it");
  m.kernel = &kernel;
  m.error = nullptr;
  m.threads.assign(size_t(block.x) * block.y * block.z, {});
  for (size_t i = 0; i < m.threads.size(); ++i)
    m.threads[i].index = {unsigned(i % block.x), unsigned(i / block.x % block.y), unsigned(i / block.x / block.y)};
  m.warps.resize((m.threads.size() + 31) / 32);
  m.shared.assign(shared + 128, std::byte{0xcd});
  blockDim = block;
  gridDim = grid;
  std::vector<int> blocks(size_t(grid.x) * grid.y * grid.z);
  m.arrange(blocks);
  for (const int b : blocks) {
    blockIdx = {unsigned(b) % grid.x, unsigned(b) / grid.x % grid.y, unsigned(b) / grid.x / grid.y};
    std::ranges::fill(m.shared, std::byte{0xcd});
    m.block();
    if (m.error) std::rethrow_exception(m.error);
  }
}

}  // namespace shim

namespace {

std::atomic<bool> events_held = false;

struct Event {
  std::chrono::steady_clock::time_point at;
  std::atomic<bool> held = false;
};

}  // namespace

void shim::hold_events(bool hold) { events_held = hold; }

cudaError_t cudaMalloc(void** p, size_t bytes) {
  *p = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*p) std::memset(*p, 0xcd, bytes);  // NaN in bf16 and f32 it is not, but a number nobody expects
  return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void* p) { return std::free(p), cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) { return *free = *total = size_t(8) << 30, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  *p = {};
  std::strcpy(p->name, "shim (a CPU that plays a GPU, for tests)");
  p->major = 9;
  p->multiProcessorCount = 4;
  p->l2CacheSize = 1 << 20;
  p->totalGlobalMem = size_t(8) << 30;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* e) {
  *e = reinterpret_cast<cudaEvent_t>(new Event);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete reinterpret_cast<Event*>(e), cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) {
  reinterpret_cast<Event*>(e)->at = std::chrono::steady_clock::now();
  reinterpret_cast<Event*>(e)->held = events_held.load();
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
  return reinterpret_cast<Event*>(e)->held ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  *ms = std::chrono::duration<float, std::milli>(reinterpret_cast<Event*>(to)->at - reinterpret_cast<Event*>(from)->at)
            .count();
  return cudaSuccess;
}
