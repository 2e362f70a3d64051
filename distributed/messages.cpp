#include "distributed/messages.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "distributed/message_world.h"
#include "distributed/sum.h"

namespace agon {

namespace {

std::byte* address_of(const Tensor& t) { return static_cast<std::byte*>(const_cast<void*>(t.address())); }
std::span<std::byte> bytes_of(const Tensor& t) { return {address_of(t), size_t(t.bytes())}; }
int64_t sum_of(std::span<const int64_t> n) { return std::accumulate(n.begin(), n.end(), int64_t(0)); }

/// One of n slices of some elements.
struct Slice {
  int64_t begin, size;
};
Slice slice_of(int64_t elements, int64_t n, int64_t i) {
  const int64_t most = (elements + n - 1) / n, begin = std::min(elements, i * most);
  return {begin, std::min(elements, begin + most) - begin};
}

/// The group's ranks but this one, the next one first: so that not all send to the same one at a time.
std::vector<size_t> others(const MessageGroup& group) {
  std::vector<size_t> list;
  for (size_t i = 1; i < group.ranks.size(); ++i) list.push_back((group.me + i) % group.ranks.size());
  return list;
}

using SliceOf = std::function<Slice(size_t)>;

/// Sends each rank its slice of the call's tensor, and adds what they send of this rank's, in the ranks' order, into
/// `sum`.
void add_slices(MessageWorld& world, MessageCall& call, const SliceOf& slice, std::byte* sum) {
  const MessageGroup& group = call.group();
  const Tensor& t = call.tensor();
  const int64_t element = size_of(t.dtype());
  for (size_t r : others(group)) {
    const auto [begin, size] = slice(r);
    call.send(world.link(), r, bytes_of(t).subspan(size_t(begin * element), size_t(size * element)), 1);
  }
  const Slice own = slice(group.me);
  const size_t bytes = size_t(own.size * element);
  const auto arrived = std::make_shared<std::shared_ptr<std::byte>>();  // block after block, by rank
  const auto block = [arrived, bytes, me = group.me](size_t r) { return arrived->get() + (r - (r > me)) * bytes; };
  call.then([&world, &call, arrived, block, bytes] {
    *arrived = world.scratch(bytes * (call.group().ranks.size() - 1));
    for (size_t r : others(call.group())) call.receive(world.link(), r, {block(r), bytes}, 1);
  });
  call.then([&call, arrived, block, own, element, sum] {
    const MessageGroup& g = call.group();
    std::vector<const void*> from;
    from.reserve(g.ranks.size());
    for (size_t r = 0; r < g.ranks.size(); ++r)
      from.push_back(r == g.me ? address_of(call.tensor()) + own.begin * element : block(r));
    void* const to = sum;
    sum_in_order(call.tensor().dtype(), own.size, from, {&to, 1});
    arrived->reset();
  });
}

class MessageRank final : public Communicator {
 public:
  MessageRank(std::shared_ptr<MessageWorld> world, std::shared_ptr<MessageGroup> group)
      : world_(std::move(world)), group_(std::move(group)) {}
  int rank() const override { return int(group_->me); }
  int size() const override { return int(group_->ranks.size()); }

  std::unique_ptr<Communicator> split(int color, int key) override {
    auto part = std::make_shared<MessageGroup>();
    run({.operation = Collective::split, .color = color, .key = key},
        [&](MessageCall& call) { call.then([&, part] { *part = part_of(call); }); });
    return std::make_unique<MessageRank>(world_, std::move(part));
  }

  Tensor all_to_all(const Tensor& send, std::span<const int64_t> send_rows,
                    std::span<const int64_t> receive_rows) override {
    Tensor received;
    run({.operation = Collective::all_to_all, .tensor = &send, .send_rows = send_rows, .receive_rows = receive_rows},
        [&](MessageCall& call) {
          if (size() == 1) return void(received = send);
          const int64_t row = send.shape().with(0, 1).size() * size_of(send.dtype());
          const auto block = [row](const Tensor& t, std::span<const int64_t> rows, size_t r) {
            return bytes_of(t).subspan(size_t(sum_of(rows.first(r)) * row), size_t(rows[r] * row));
          };
          for (size_t r : others(*group_)) call.send(world_->link(), r, block(send, send_rows, r), 1);
          received = Tensor(send.shape().with(0, sum_of(receive_rows)), send.dtype());
          call.then([&, block] {
            for (size_t r : others(*group_)) call.receive(world_->link(), r, block(received, receive_rows, r), 1);
            std::ranges::copy(block(send, send_rows, group_->me), block(received, receive_rows, group_->me).begin());
          });
        });
    return received;
  }

  void all_reduce(const Tensor& t) override { run({.operation = Collective::all_reduce, .tensor = &t}, reducing()); }

  void broadcast(const Tensor& t, int root) override {
    run({.operation = Collective::broadcast, .tensor = &t, .root = root}, [&](MessageCall& call) {
      if (rank() == root)
        for (size_t r : others(*group_)) call.send(world_->link(), r, bytes_of(t), 1);
      else
        call.then([&] { call.receive(world_->link(), size_t(root), bytes_of(t), 1); });
    });
  }

  Tensor all_gather(const Tensor& t) override {
    Tensor all;
    run({.operation = Collective::all_gather, .tensor = &t}, [&](MessageCall& call) {
      if (size() == 1) return void(all = t);
      for (size_t r : others(*group_)) call.send(world_->link(), r, bytes_of(t), 1);
      call.then([&] {
        std::vector<int64_t> starts(1, 0);
        for (int r = 0; r < size(); ++r) starts.push_back(starts.back() + call.header(size_t(r)).extents[0]);
        all = Tensor(t.shape().with(0, starts.back()), t.dtype());
        const int64_t row = t.shape().with(0, 1).size() * size_of(t.dtype());
        const auto block = [&](size_t r) {
          return bytes_of(all).subspan(size_t(starts[r] * row), size_t((starts[r + 1] - starts[r]) * row));
        };
        for (size_t r : others(*group_)) call.receive(world_->link(), r, block(r), 1);
        std::ranges::copy(bytes_of(t), block(group_->me).begin());
      });
    });
    return all;
  }

  Tensor reduce_scatter(const Tensor& t) override {
    Tensor block;
    run({.operation = Collective::reduce_scatter, .tensor = &t}, scattering(block));
    return block;
  }

  void barrier() override {
    run({.operation = Collective::barrier}, [](MessageCall&) {});
  }

  std::unique_ptr<StartedCall> start_all_reduce(const Tensor& t) override {
    return std::make_unique<Started>(world_, begin({.operation = Collective::all_reduce, .tensor = &t}, reducing()), t);
  }
  std::unique_ptr<StartedCall> start_reduce_scatter(const Tensor& t) override {
    Tensor block;
    auto call = begin({.operation = Collective::reduce_scatter, .tensor = &t}, scattering(block));
    return std::make_unique<Started>(world_, std::move(call), block);
  }
  void progress() override { world_->progress(); }

  std::string host(int rank) const override { return world_->host(group_->ranks.at(size_t(rank))); }
  void at_step(int64_t step) override { world_->step = step; }
  std::map<Collective, Traffic> traffic() const override { return group_->traffic; }
  std::vector<double> waited_for() const override { return group_->waited; }
  void abort(const std::string& reason) override { world_->abort(reason); }

 private:
  using Build = std::function<void(MessageCall&)>;

  class Started final : public StartedCall {
   public:
    Started(std::shared_ptr<MessageWorld> world, std::shared_ptr<MessageCall> call, Tensor result)
        : world_(std::move(world)), call_(std::move(call)), result_(std::move(result)) {}
    ~Started() override { world_->give_up(*call_); }
    Tensor finish() override {
      world_->wait(call_);
      return result_;
    }

   private:
    std::shared_ptr<MessageWorld> world_;
    std::shared_ptr<MessageCall> call_;
    Tensor result_;
  };

  void run(const Call& call, const Build& build) { world_->wait(begin(call, build)); }
  std::shared_ptr<MessageCall> begin(const Call& call, const Build& build) {
    if (call.tensor && *call.tensor)
      check(call.tensor->device().kind == Device::cpu,
            "ranks that are processes without NCCL exchange tensors on the CPU, got one on ", call.tensor->device());
    return world_->start(group_, call, build);
  }

  /// Slices by element: each rank sums one and sends it to all.
  Build reducing() {
    return [this](MessageCall& call) {
      if (size() == 1) return;
      const Tensor& t = call.tensor();
      const auto slice = [elements = t.size(), n = size()](size_t r) { return slice_of(elements, n, int64_t(r)); };
      const auto bytes = [&call, slice](size_t r) {
        const auto [begin, elements] = slice(r);
        const int64_t element = size_of(call.tensor().dtype());
        return bytes_of(call.tensor()).subspan(size_t(begin * element), size_t(elements * element));
      };
      add_slices(*world_, call, slice, bytes(group_->me).data());
      call.then([world = world_.get(), &call, bytes] {
        for (size_t r : others(call.group())) {
          call.receive(world->link(), r, bytes(r), 2);
          call.send(world->link(), r, bytes(call.group().me), 2);
        }
      });
    };
  }

  /// Slices by rows; the own one's sum is a tensor of its own, made when the call begins.
  Build scattering(Tensor& block) {
    return [this, &block](MessageCall& call) {
      const Tensor& t = call.tensor();
      if (size() == 1) return void(block = t);
      block = Tensor(t.shape().with(0, t.shape(0) / size()), t.dtype());
      const auto slice = [n = block.size()](size_t r) { return Slice{int64_t(r) * n, n}; };
      add_slices(*world_, call, slice, address_of(block));
    };
  }

  /// The ranks of this group that gave the same color, by key, then by rank.
  MessageGroup part_of(const MessageCall& call) {
    MessageGroup part;
    for (int r = 0; r < size(); ++r) part.id = std::max(part.id, call.header(size_t(r)).next_group);
    world_->next_group = part.id + 1;
    const MessageHeader& own = call.header(group_->me);
    std::vector<size_t> members;
    for (size_t r = 0; r < group_->ranks.size(); ++r)
      if (call.header(r).color == own.color) members.push_back(r);
    std::ranges::stable_sort(members, {}, [&](size_t r) { return call.header(r).key; });
    for (size_t r : members) {
      if (r == group_->me) part.me = part.ranks.size();
      part.ranks.push_back(group_->ranks[r]);
    }
    part.waited.resize(part.ranks.size());
    return part;
  }

  std::shared_ptr<MessageWorld> world_;
  std::shared_ptr<MessageGroup> group_;
};

}  // namespace

std::unique_ptr<Communicator> make_message_communicator(std::unique_ptr<Link> link, CommunicatorOptions options) {
  const auto world = std::make_shared<MessageWorld>(std::move(link), std::move(options));
  auto meeting = std::make_shared<MessageGroup>(*world->all());
  meeting->id = 1;
  const Arena::Outside outside;  // of any step
  constexpr int64_t kLongest = 256;
  const Tensor own({1, kLongest}, DType::u8);
  own.zero();
  const std::string host = world->link().host();
  std::memcpy(address_of(own), host.data(), std::min(host.size(), size_t(kLongest - 1)));
  const Tensor all = MessageRank(world, meeting).all_gather(own);
  std::vector<std::string> hosts(size_t(world->link().size()));
  for (size_t r = 0; r < hosts.size(); ++r)
    hosts[r] = reinterpret_cast<const char*>(address_of(all)) + int64_t(r) * kLongest;
  world->know_hosts(std::move(hosts));
  return std::make_unique<MessageRank>(world, world->all());
}

}  // namespace agon
