#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <numeric>
#include <system_error>
#include <thread>
#include <vector>

#include "distributed/call.h"
#include "distributed/communicator.h"
#include "distributed/host.h"
#include "distributed/least_traffic.h"
#include "distributed/names.h"
#include "distributed/sum.h"

namespace agon {

namespace {

using Clock = std::chrono::steady_clock;

/// What all groups of one run_on_threads share. One failed rank ends the work of all, so there is one failure.
struct World {
  World(int n, std::chrono::milliseconds limit) : deadline(limit), ended(size_t(n)) {}
  const std::chrono::milliseconds deadline;
  std::mutex mutex;  // of everything below and of all groups
  std::condition_variable changed;
  std::string failure;      // why every call fails from now on; empty while all is well
  int64_t step = 0;         // of the optimizer, for failures
  std::vector<char> ended;  // ranks whose body has returned

  void fail(const std::string& reason) {
    if (failure.empty()) failure = reason.empty() ? "no reason given" : reason;
    changed.notify_all();
  }
};

/// The ranks of one communicator meet here for each call.
struct Group {
  Group(std::shared_ptr<World> w, std::vector<int> members)
      : world(std::move(w)),
        ranks(std::move(members)),
        calls(ranks.size()),
        here(ranks.size()),
        came(ranks.size()),
        waited(ranks.size(), std::vector<double>(ranks.size())) {}
  const std::shared_ptr<World> world;
  const std::vector<int> ranks;  // by their numbers in the world
  std::vector<Call> calls;
  std::vector<char> here;                       // ranks that wait for the others
  std::vector<Clock::time_point> came;          // when each came to the last call
  std::vector<std::vector<double>> waited;      // seconds, by each rank for each
  int64_t round = 0;                            // calls that have begun on all ranks
  size_t reading = 0;                           // ranks that have not finished the last of them
  std::map<int, std::shared_ptr<Group>> parts;  // of a split, by color

  /// All are here: the calls may be read, unless they do not fit together.
  void open() {
    if (const std::string found = disagreement(calls, ranks); !found.empty())
      return world->fail(text(named_call(round + 1, ranks), ", ", calls[0].operation, ": ", found));
    if (calls[0].operation == Collective::split) make_parts();
    std::ranges::fill(here, 0);
    reading = ranks.size();
    ++round;
    world->changed.notify_all();
  }

  void make_parts() {
    std::vector<size_t> order(calls.size());
    std::iota(order.begin(), order.end(), size_t(0));
    std::ranges::stable_sort(order, {}, [&](size_t r) { return calls[r].key; });
    std::map<int, std::vector<int>> members;
    for (size_t r : order) members[calls[r].color].push_back(ranks[r]);
    parts.clear();
    for (auto& [color, list] : members) parts[color] = std::make_shared<Group>(world, std::move(list));
  }

  /// The ranks that are not here, in words.
  std::string missing() const {
    std::string list;
    for (size_t r = 0; r < ranks.size(); ++r)
      if (!here[r]) list += (list.empty() ? "" : ", ") + named(ranks[r], this_host());
    return list;
  }

  bool waits_in_vain() const {
    return std::ranges::any_of(ranks, [&](int r) { return world->ended[size_t(r)]; });
  }
};

double seconds(Clock::duration time) { return std::chrono::duration<double>(time).count(); }

/// One call on one rank. While it lives, the calls of all ranks may be read: none returns, and takes back what it gave,
/// before all have finished. Nothing a rank does in that time waits for another, so this second wait needs no way out.
class Round {
 public:
  Round(Group& group, size_t rank, const Call& call, std::map<Collective, Traffic>& traffic)
      : group_(group), traffic_(traffic[call.operation]) {
    World& world = *group.world;
    std::unique_lock lock(world.mutex);
    const int64_t before = group.round;
    if (world.failure.empty()) {
      group.calls[rank] = call;
      group.here[rank] = 1;
      group.came[rank] = start_;
      if (std::ranges::count(group.here, 0) == 0) group.open();
    }
    const auto over = [&] { return group.round != before || !world.failure.empty() || group.waits_in_vain(); };
    const bool in_time = world.changed.wait_until(lock, Clock::now() + world.deadline, over);
    traffic_.waited += seconds(Clock::now() - start_);
    if (group.round != before) {
      for (size_t r = 0; r < group.ranks.size(); ++r)
        group.waited[rank][r] += std::max(0.0, seconds(group.came[r] - start_));
      int64_t all_rows = 0;
      if (call.operation == Collective::all_gather)
        for (const Call& c : group.calls) all_rows += c.tensor->shape(0);
      const Traffic moved = least_traffic(call, int(rank), int(group.ranks.size()), all_rows);
      traffic_.sent += moved.sent;
      traffic_.received += moved.received;
      return;
    }
    if (world.failure.empty())
      world.fail(text(named_call(before + 1, group.ranks), ", ", call.operation,
                      in_time ? ": a rank has ended without it: " : ": waited " + duration(world.deadline) + " for ",
                      group.missing()));
    throw Error(text(call.operation, " on ", named(group.ranks[rank], this_host()),
                     world.step ? text(" in step ", world.step) : "", " failed: ", world.failure));
  }
  ~Round() {
    World& world = *group_.world;
    std::unique_lock lock(world.mutex);
    if (--group_.reading == 0) world.changed.notify_all();
    world.changed.wait(lock, [&] { return group_.reading == 0; });
    ++traffic_.calls;
    traffic_.seconds += seconds(Clock::now() - start_);
  }
  Round(const Round&) = delete;
  Round& operator=(const Round&) = delete;

 private:
  Group& group_;
  Traffic& traffic_;
  const Clock::time_point start_ = Clock::now();
};

std::byte* bytes_of(const Tensor& t) { return static_cast<std::byte*>(const_cast<void*>(t.address())); }
int64_t row_bytes(const Tensor& t) { return t.shape().with(0, 1).size() * size_of(t.dtype()); }
int64_t sum_of(std::span<const int64_t> n) { return std::accumulate(n.begin(), n.end(), int64_t(0)); }

class ThreadRank final : public Communicator {
 public:
  ThreadRank(std::shared_ptr<Group> group, size_t rank) : group_(std::move(group)), rank_(rank) {}
  int rank() const override { return int(rank_); }
  int size() const override { return int(group_->ranks.size()); }

  std::unique_ptr<Communicator> split(int color, int key) override {
    const Round round(*group_, rank_, {.operation = Collective::split, .color = color, .key = key}, traffic_);
    const auto& part = group_->parts.at(color);
    const auto place = std::ranges::find(part->ranks, group_->ranks[rank_]);
    return std::make_unique<ThreadRank>(part, size_t(place - part->ranks.begin()));
  }

  Tensor all_to_all(const Tensor& send, std::span<const int64_t> send_rows,
                    std::span<const int64_t> receive_rows) override {
    on_host(send);
    const Round round(
        *group_, rank_,
        {.operation = Collective::all_to_all, .tensor = &send, .send_rows = send_rows, .receive_rows = receive_rows},
        traffic_);
    const Tensor received(send.shape().with(0, sum_of(receive_rows)), send.dtype());
    std::byte* to = bytes_of(received);
    for (const Call& from : group_->calls) {
      const int64_t row = row_bytes(send), n = from.send_rows[rank_] * row;
      std::memcpy(to, bytes_of(*from.tensor) + sum_of(from.send_rows.first(rank_)) * row, size_t(n));
      to += n;
    }
    return received;
  }

  /// Each rank sums one slice over all tensors and writes it into all of them: nobody else touches that slice.
  void all_reduce(const Tensor& t) override {
    on_host(t);
    const Round round(*group_, rank_, {.operation = Collective::all_reduce, .tensor = &t}, traffic_);
    const int64_t slice = (t.size() + size() - 1) / size(), begin = std::min(t.size(), rank() * slice),
                  end = std::min(t.size(), begin + slice);
    std::vector<void*> slices;
    for (const Call& c : group_->calls) slices.push_back(bytes_of(*c.tensor) + begin * size_of(t.dtype()));
    const std::vector<const void*> from(slices.begin(), slices.end());
    sum_in_order(t.dtype(), end - begin, from, slices);
  }

  void broadcast(const Tensor& t, int root) override {
    on_host(t);
    const Round round(*group_, rank_, {.operation = Collective::broadcast, .tensor = &t, .root = root}, traffic_);
    if (rank() != root) std::memcpy(bytes_of(t), bytes_of(*group_->calls[size_t(root)].tensor), size_t(t.bytes()));
  }

  Tensor all_gather(const Tensor& t) override {
    on_host(t);
    const Round round(*group_, rank_, {.operation = Collective::all_gather, .tensor = &t}, traffic_);
    int64_t rows = 0;
    for (const Call& c : group_->calls) rows += c.tensor->shape(0);
    const Tensor all(t.shape().with(0, rows), t.dtype());
    std::byte* to = bytes_of(all);
    for (const Call& c : group_->calls) {
      std::memcpy(to, bytes_of(*c.tensor), size_t(c.tensor->bytes()));
      to += c.tensor->bytes();
    }
    return all;
  }

  Tensor reduce_scatter(const Tensor& t) override {
    on_host(t);
    const Round round(*group_, rank_, {.operation = Collective::reduce_scatter, .tensor = &t}, traffic_);
    const Tensor block(t.shape().with(0, t.shape(0) / size()), t.dtype());
    std::vector<const void*> from;
    for (const Call& c : group_->calls) from.push_back(bytes_of(*c.tensor) + rank() * block.bytes());
    void* const to = bytes_of(block);
    sum_in_order(t.dtype(), block.size(), from, {&to, 1});
    return block;
  }

  void barrier() override { const Round round(*group_, rank_, {.operation = Collective::barrier}, traffic_); }

  std::string host(int) const override { return this_host(); }
  void at_step(int64_t step) override {
    const std::lock_guard lock(group_->world->mutex);
    group_->world->step = step;
  }
  std::map<Collective, Traffic> traffic() const override { return traffic_; }
  std::vector<double> waited_for() const override {
    const std::lock_guard lock(group_->world->mutex);
    return group_->waited[rank_];
  }

  void abort(const std::string& reason) override {
    const std::lock_guard lock(group_->world->mutex);
    group_->world->fail(text(named(group_->ranks[rank_], this_host()), ": ", reason));
  }

 private:
  void on_host(const Tensor& t) const {
    check(t.device().kind == Device::cpu, "ranks that are threads exchange tensors on the CPU, got one on ",
          t.device());
  }

  std::shared_ptr<Group> group_;
  size_t rank_;
  std::map<Collective, Traffic> traffic_;
};

std::string reason_of(const std::exception_ptr& e) {
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& known) { return known.what(); } catch (...) {
    return "an exception of unknown type";
  }
}

}  // namespace

void run_on_threads(int n, const std::function<void(Communicator&)>& body, std::chrono::milliseconds deadline) {
  check(n >= 1, "run_on_threads needs at least one rank, got ", n);
  const auto world = std::make_shared<World>(n, deadline);
  std::vector<int> ranks(size_t(n), 0);
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto all = std::make_shared<Group>(world, ranks);
  std::exception_ptr first;
  const auto run_rank = [&](int r) {
    ThreadRank comm(all, size_t(r));
    std::exception_ptr caught;
    try {
      body(comm);
    } catch (...) { caught = std::current_exception(); }
    const std::lock_guard lock(world->mutex);
    if (caught) {
      if (!first) first = caught;
      world->fail(text(named(r, this_host()), ": ", reason_of(caught)));
    }
    world->ended[size_t(r)] = 1;
    world->changed.notify_all();
  };
  {
    std::vector<std::jthread> threads;
    try {
      for (int r : ranks) threads.emplace_back(run_rank, r);
    } catch (const std::system_error& e) {
      const std::lock_guard lock(world->mutex);
      if (!first)
        first = std::make_exception_ptr(Error(text("rank ", threads.size(), " could not be started: ", e.what())));
      world->fail(reason_of(first));
    }
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace agon
