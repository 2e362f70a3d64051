#pragma once
#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "distributed/nccl_library.h"

namespace agon::testing {

/// NCCL played by the host, for ranks that are threads of this process: memory of a device is the host's (the CPU, or
/// the GPU that the preset shim plays). As NCCL's non-blocking communicators do, a call returns at once and is in
/// progress until all ranks of its communicator have made it; the part of a split exists from then on. Calls that do
/// not fit together never end.
class FakeNccl {
 public:
  static FakeNccl& instance() {
    static FakeNccl fake;
    return fake;
  }
  /// Forgets what went before.
  static FakeNccl& fresh() {
    FakeNccl& f = instance();
    const std::lock_guard lock(f.mutex_);
    f.hangs_at = f.fails_at = {};
    f.when_called = nullptr;
    f.failure = NcclLibrary::remote_error;
    f.said = {};
    f.aborted = f.destroyed = 0;
    f.calls.clear();
    return f;
  }
  static const NcclLibrary& library();

  std::string hangs_at, fails_at;  ///< the call that never ends, or fails ("all_reduce", "open", ...)
  std::function<void(const std::string& call)> when_called;
  int failure = NcclLibrary::remote_error;
  std::string said;                ///< the library's last words
  std::atomic<int> aborted = 0, destroyed = 0;  ///< communicators
  std::vector<std::string> calls;  ///< all that was called, of any rank: "send_receive 0>1:8 1>0:0"
  int count(const std::string& prefix) {
    const std::lock_guard lock(mutex_);
    return int(
        std::ranges::count_if(calls, [&](const std::string& c) { return c.compare(0, prefix.size(), prefix) == 0; }));
  }

 private:
  struct Request {
    std::string kind;
    const void* from = nullptr;
    void* to = nullptr;
    size_t n = 0;
    int type = 0, color = 0, key = 0;
    void** part = nullptr;
    std::vector<NcclLibrary::Gift> gifts = {};
    std::vector<NcclLibrary::Transfer> transfers = {};
  };
  struct Group {
    int size = 0;
    bool broken = false;                             // a rank has aborted it: the others' calls fail
    std::map<int, std::map<int, Request>> meetings;  // by number of the call, by rank
    int done = 0;                                    // calls that have ended
  };
  struct Member {
    std::shared_ptr<Group> group;
    int rank = 0, made = 0, error = 0;
  };
  static Member& member(void* communicator) { return *static_cast<Member*>(communicator); }

  int enter(Member& m, Request request) {
    calls.push_back(request.kind);
    if (when_called) when_called(request.kind);
    if (request.kind == "send_receive")
      for (const auto& t : request.transfers)
        calls.back() +=
            " " + std::to_string(m.rank) + ">" + std::to_string(t.rank) + ":" + std::to_string(t.send_bytes);
    if (fails_at == request.kind) m.error = failure;
    const std::string kind = request.kind;
    auto& meeting = m.group->meetings[m.made++];
    meeting[m.rank] = std::move(request);
    if (int(meeting.size()) == m.group->size && !m.group->broken && hangs_at != kind && perform(meeting))
      m.group->done = m.made;
    return state_of(m);
  }
  static int state_of(const Member& m) {
    if (m.error) return m.error;
    if (m.group->done >= m.made) return NcclLibrary::success;
    return m.group->broken && instance().hangs_at.empty() ? NcclLibrary::remote_error : NcclLibrary::in_progress;
  }

  template <class T>
  static void add(std::map<int, Request>& all, bool scatter) {
    const size_t n = all[0].n, total = scatter ? n * all.size() : n;
    std::vector<T> sum(total, T(0));
    for (auto& [rank, r] : all)
      for (size_t i = 0; i < total; ++i) sum[i] += static_cast<const T*>(r.from)[i];
    for (auto& [rank, r] : all) std::memcpy(r.to, sum.data() + (scatter ? size_t(rank) * n : 0), n * sizeof(T));
  }

  /// False where the ranks' calls do not fit together.
  static bool perform(std::map<int, Request>& all) {
    const Request& first = all[0];
    for (auto& [rank, r] : all)
      if (r.kind != first.kind || r.n != first.n || r.type != first.type || r.gifts.size() != first.gifts.size())
        return false;
    if (first.kind == "all_reduce" || first.kind == "reduce_scatter") {
      const bool scatter = first.kind == "reduce_scatter";
      if (first.type == NcclLibrary::f32) add<float>(all, scatter);
      if (first.type == NcclLibrary::f64) add<double>(all, scatter);
      if (first.type == NcclLibrary::i32) add<int32_t>(all, scatter);
    }
    if (first.kind == "all_gather")
      for (auto& [to, r] : all)
        for (auto& [from, other] : all)
          std::memmove(static_cast<std::byte*>(r.to) + size_t(from) * r.n, other.from, r.n);
    for (size_t i = 0; i < first.gifts.size(); ++i)
      for (auto& [rank, r] : all) {
        const NcclLibrary::Gift &mine = r.gifts[i], &root = all[mine.root].gifts[i];
        if (mine.root != root.root || mine.bytes != root.bytes) return false;
        std::memmove(mine.to, root.from, mine.bytes);
      }
    for (auto& [from, r] : all)
      for (const auto& out : r.transfers) {
        const auto& there = all[out.rank].transfers;
        const auto in = std::ranges::find(there, from, &NcclLibrary::Transfer::rank);
        if (out.send_bytes != (in == there.end() ? 0 : in->receive_bytes)) return false;
        if (out.send_bytes) std::memcpy(in->receive, out.send, out.send_bytes);
      }
    if (first.kind == "split") {
      std::map<int, std::vector<std::pair<int, int>>> parts;  // by color: key, rank
      for (auto& [rank, r] : all) parts[r.color].push_back({r.key, rank});
      for (auto& [color, members] : parts) {
        std::ranges::sort(members);
        const auto part = std::make_shared<Group>();
        part->size = int(members.size());
        for (size_t i = 0; i < members.size(); ++i) *all[members[i].second].part = new Member{part, int(i)};
      }
    }
    return true;
  }

  friend struct FakeFunctions;
  std::mutex mutex_;
  int ids_ = 0;
  std::map<int, std::shared_ptr<Group>> groups_;  // by id
};

struct FakeFunctions {
  using Fake = FakeNccl;
  static Fake& fake() { return Fake::instance(); }
  static int enter(void* c, Fake::Request request) {
    const std::lock_guard lock(fake().mutex_);
    return fake().enter(Fake::member(c), std::move(request));
  }
  static int make_id(void* id) {
    const std::lock_guard lock(fake().mutex_);
    std::memset(id, 0, NcclLibrary::kIdBytes);
    const int number = ++fake().ids_;
    std::memcpy(id, &number, sizeof number);
    return fake().fails_at == "make_id" ? fake().failure : int(NcclLibrary::success);
  }
  static int open(void** communicator, int ranks, const void* id, int rank) {
    const std::lock_guard lock(fake().mutex_);
    int number = 0;
    std::memcpy(&number, id, sizeof number);
    auto& group = fake().groups_[number];
    if (!group) group = std::make_shared<Fake::Group>();
    group->size = ranks;
    auto* const m = new Fake::Member{group, rank};
    *communicator = m;
    return fake().enter(*m, {.kind = "open"});
  }
  static int split(void* c, int color, int key, void** part) {
    const std::lock_guard lock(fake().mutex_);
    return fake().enter(Fake::member(c), {.kind = "split", .color = color, .key = key, .part = part});
  }
  static int leave(void* c, std::atomic<int> Fake::*counter) {
    const std::lock_guard lock(fake().mutex_);
    Fake::Member* const m = &Fake::member(c);
    if (counter == &Fake::aborted) m->group->broken = true;
    ++(fake().*counter);
    delete m;
    return NcclLibrary::success;
  }
};

inline const NcclLibrary& FakeNccl::library() {
  using F = FakeFunctions;
  static const NcclLibrary table = {
      .layout = NcclLibrary::kLayout,
      .built_for = 22809,
      .version = [](int* v) -> int { return *v = 22809, 0; },
      .code_text = [](int code) { return code == NcclLibrary::remote_error ? "remote process exited" : "an error"; },
      .last_error = [](void*) { return instance().said.c_str(); },
      .make_id = F::make_id,
      .open = F::open,
      .split = F::split,
      .all_reduce = [](void* c, const void* from, void* to, size_t n, int type, void*) -> int {
        return F::enter(c, {.kind = "all_reduce", .from = from, .to = to, .n = n, .type = type});
      },
      .reduce_scatter = [](void* c, const void* from, void* to, size_t n, int type, void*) -> int {
        return F::enter(c, {.kind = "reduce_scatter", .from = from, .to = to, .n = n, .type = type});
      },
      .all_gather = [](void* c, const void* from, void* to, size_t bytes, void*) -> int {
        return F::enter(c, {.kind = "all_gather", .from = from, .to = to, .n = bytes});
      },
      .broadcast = [](void* c, const NcclLibrary::Gift* gifts, int count, void*) -> int {
        return F::enter(c, {.kind = "broadcast", .gifts = {gifts, gifts + count}});
      },
      .send_receive = [](void* c, const NcclLibrary::Transfer* transfers, int count, void*) -> int {
        return F::enter(c, {.kind = "send_receive", .transfers = {transfers, transfers + count}});
      },
      .state = [](void* c, int* code) -> int {
        const std::lock_guard lock(instance().mutex_);
        return *code = FakeNccl::state_of(FakeNccl::member(c)), 0;
      },
      .finalize = [](void*) -> int { return 0; },
      .destroy = [](void* c) { return F::leave(c, &FakeNccl::destroyed); },
      .abort = [](void* c) { return F::leave(c, &FakeNccl::aborted); },
  };
  return table;
}

}  // namespace agon::testing
