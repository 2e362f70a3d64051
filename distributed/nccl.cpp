#include "distributed/nccl.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <numeric>
#include <vector>

#include "core/copy.h"
#include "core/gpu.h"
#include "distributed/call.h"
#include "distributed/call_ledger.h"
#include "distributed/names.h"
#include "distributed/nccl_open.h"
#include "distributed/nccl_world.h"

namespace agon {

namespace {

int type_of(DType t) {
  if (t == DType::f32) return NcclLibrary::f32;
  if (t == DType::f64) return NcclLibrary::f64;
  check(t == DType::i32, "NCCL is not asked to add ", t);
  return NcclLibrary::i32;
}

std::byte* bytes_of(const Tensor& t) { return static_cast<std::byte*>(const_cast<void*>(t.address())); }
int64_t row_bytes(const Tensor& t) { return t.shape().with(0, 1).size() * size_of(t.dtype()); }
int64_t sum_of(std::span<const int64_t> n) { return std::accumulate(n.begin(), n.end(), int64_t(0)); }

/// What NCCL is to add: bf16 in f32.
Tensor wide(const Tensor& t) { return t.dtype() == DType::bf16 ? converted(t, DType::f32) : t; }

/// The bytes that a sum over `size` ranks has to move each way, on rank `rank`: everybody's values of a rank's slice
/// come to it, and its sums go to everybody.
int64_t summed_bytes(const Tensor& t, int rank, int size) {
  const int64_t slice = (t.size() + size - 1) / size, begin = std::min(t.size(), rank * slice);
  const int64_t own = (std::min(t.size(), begin + slice) - begin) * size_of(t.dtype());
  return t.bytes() - own + (size - 1) * own;
}

void add(std::map<Collective, Traffic>& to, const std::map<Collective, Traffic>& more, double sign) {
  for (const auto& [operation, t] : more) {
    Traffic& sum = to[operation];
    sum.calls += int64_t(sign) * t.calls;
    sum.sent += int64_t(sign) * t.sent;
    sum.received += int64_t(sign) * t.received;
    sum.seconds += sign * t.seconds;
    sum.waited += sign * t.waited;
  }
}

class NcclRank final : public Communicator {
 public:
  NcclRank(std::shared_ptr<NcclWorld> world, void* communicator, std::unique_ptr<Communicator> control,
           std::string name, bool send_to_self)
      : world_(std::move(world)),
        communicator_(communicator),
        control_(std::move(control)),
        name_(std::move(name)),
        send_to_self_(send_to_self),
        ledger_(control_->size()),
        lane_(world_->device()),
        agreeing_(control_->traffic()) {}
  ~NcclRank() override {
    world_->forget(traffic_);
    world_->close(communicator_, std::uncaught_exceptions() > exceptions_);
  }

  int rank() const override { return control_->rank(); }
  int size() const override { return control_->size(); }
  std::string host(int rank) const override { return control_->host(rank); }
  std::unique_ptr<Communicator> split(int color, int key) override;
  Tensor all_to_all(const Tensor& send, std::span<const int64_t> send_rows,
                    std::span<const int64_t> receive_rows) override;
  void all_reduce(const Tensor& t) override { start_all_reduce(t)->finish(); }
  void broadcast(const Tensor& t, int root) override;
  Tensor all_gather(const Tensor& t) override;
  Tensor reduce_scatter(const Tensor& t) override { return start_reduce_scatter(t)->finish(); }
  void barrier() override;
  std::unique_ptr<StartedCall> start_all_reduce(const Tensor& t) override;
  std::unique_ptr<StartedCall> start_reduce_scatter(const Tensor& t) override;
  void progress() override { control_->progress(); }
  void at_step(int64_t step) override;
  std::map<Collective, Traffic> traffic() const override;
  std::vector<double> waited_for() const override { return control_->waited_for(); }
  void abort(const std::string& reason) override;

  /// Makes this thread's later work on the device wait for a call. Throws when something has failed.
  void follow(Collective operation, const Lane::Mark& done) {
    alive(operation);
    Lane::work_follows(world_->device(), done);
  }
  Device device() const { return world_->device(); }

 private:
  const NcclLibrary& library() const { return world_->library(); }

  std::string named_operation(Collective operation) const {
    return text(operation, " on ", named(rank(), host(rank())), step_ ? text(" in step ", step_) : "");
  }
  void alive(Collective operation) {
    if (const std::string failure = world_->failure(); !failure.empty()) refuse(operation, failure);
  }
  [[noreturn]] void fail(Collective operation, const std::string& why) {
    world_->fail(why);
    refuse(operation, world_->failure());
  }
  /// Throws, and has the other ranks' calls fail too.
  [[noreturn]] void refuse(Collective operation, const std::string& failure) {
    control_->abort(failure);
    throw Error(text(named_operation(operation), " failed: ", failure));
  }

  /// f(), which asks the other ranks on the host for what is not a call of the user's.
  template <class F>
  auto agreed(F&& f) {
    const std::map<Collective, Traffic> before = control_->traffic();
    auto result = f();
    add(agreeing_, control_->traffic(), 1);
    add(agreeing_, before, -1);
    return result;
  }
  /// The ranks are about to meet on the host: if they have called differently, this is the place to see it.
  void meet(Collective operation) {
    alive(operation);
    const std::string found = agreed([&] { return ledger_.compare(*control_); });
    if (!found.empty()) fail(operation, found);
  }
  std::vector<int64_t> rows_of_all(int64_t own);

  /// Whether the call is for the control communicator.
  bool on_host(const Call& call) {
    if (!call.tensor || !*call.tensor || call.tensor->device() == world_->device()) return false;
    if (call.tensor->device().kind != Device::cpu)
      fail(call.operation, text(call.operation, " of a tensor on ", call.tensor->device(), ": this rank's are on ",
                                world_->device(), " or on the host"));
    meet(call.operation);
    return true;
  }

  /// Notes a call that is to go through NCCL, after what a rank can check alone.
  int64_t note(const Call& call) {
    alive(call.operation);
    const int own = rank();
    if (size() == 1) {
      if (const std::string wrong = disagreement({&call, 1}, {&own, 1}); !wrong.empty()) fail(call.operation, wrong);
    } else if (const std::string wrong = fault(call, size()); !wrong.empty()) {
      fail(call.operation, text(call.operation, ": rank ", own, ' ', wrong));
    }
    return ledger_.note(call);
  }

  /// Puts a noted call into the stream behind this thread's work, and has it watched. Returns the mark of its end.
  template <class Put>
  Lane::Mark put(int64_t number, const Call& call, int64_t sent, int64_t received, Put&& library_call) {
    Traffic& moved = traffic_[call.operation];
    NcclWorld::Flight flight{.group = name_,
                             .number = number,
                             .what = text(call.operation, " of ", call.tensor->dtype(), ' ', call.tensor->shape()),
                             .bytes = call.tensor->bytes(),
                             .ready = world_->spare_mark(),
                             .done = world_->spare_mark(),
                             .seconds = &moved};
    lane_.follow_work();
    lane_.set(flight.ready);
    world_->put(communicator_, named_operation(call.operation), library_call);
    lane_.set(flight.done);
    ++moved.calls;
    moved.sent += sent;
    moved.received += received;
    Lane::Mark done = flight.done;
    world_->watch(std::move(flight));
    return done;
  }

  const std::shared_ptr<NcclWorld> world_;
  void* const communicator_;
  const std::unique_ptr<Communicator> control_;
  const std::string name_;  // of the group
  const bool send_to_self_;
  const int exceptions_ = std::uncaught_exceptions();
  CallLedger ledger_;
  Lane lane_;
  int64_t step_ = 0;
  std::map<Collective, Traffic> traffic_;  // through NCCL
  std::map<Collective, Traffic>
      agreeing_;  // through the control communicator, of what only serves the ranks' agreement
};

/// A sum in the stream.
class StartedSum final : public StartedCall {
 public:
  /// The device reads and writes `given`, and `sum` will be what it gives; `result` is what finish() returns: `sum`, or
  /// a bf16 tensor that takes its values.
  StartedSum(NcclRank& rank, Collective operation, Lane::Mark done, Tensor given, Tensor sum, Tensor result)
      : rank_(rank),
        operation_(operation),
        done_(std::move(done)),
        given_(std::move(given)),
        sum_(std::move(sum)),
        result_(std::move(result)) {}
  ~StartedSum() override {
    // The tensors' memory may be used again only after the call.
    if (done_) Lane::work_follows(rank_.device(), done_);
  }
  Tensor finish() override {
    if (done_) rank_.follow(operation_, done_);
    done_ = {};
    if (sum_.address() != result_.address()) copy(result_, sum_);
    return result_;
  }

 private:
  NcclRank& rank_;
  Collective operation_;
  Lane::Mark done_;
  Tensor given_, sum_, result_;
};

std::unique_ptr<Communicator> NcclRank::split(int color, int key) {
  meet(Collective::split);
  auto part = control_->split(color, key);
  const std::string what = named_operation(Collective::split);
  world_->settle(what);
  void* const made =
      world_->open(what, communicator_, [&](void** to) { return library().split(communicator_, color, key, to); });
  return std::make_unique<NcclRank>(world_, made, std::move(part), text("part ", color, " of ", name_), send_to_self_);
}

Tensor NcclRank::all_to_all(const Tensor& send, std::span<const int64_t> send_rows,
                            std::span<const int64_t> receive_rows) {
  const Call call{
      .operation = Collective::all_to_all, .tensor = &send, .send_rows = send_rows, .receive_rows = receive_rows};
  if (on_host(call)) return control_->all_to_all(send, send_rows, receive_rows);
  const int64_t number = note(call), row = row_bytes(send), own = send_rows[size_t(rank())] * row;
  const Tensor received(send.shape().with(0, sum_of(receive_rows)), send.dtype(), send.device());
  std::vector<NcclLibrary::Transfer> transfers;
  std::byte *from = bytes_of(send), *to = bytes_of(received), *own_from = nullptr, *own_to = nullptr;
  for (int r = 0; r < size(); ++r) {
    const int64_t out = send_rows[size_t(r)] * row, in = receive_rows[size_t(r)] * row;
    if (r == rank() && !send_to_self_)
      own_from = from, own_to = to;
    else if (out || in)
      transfers.push_back({r, from, size_t(out), to, size_t(in)});
    from += out;
    to += in;
  }
  follow(call.operation, put(number, call, send.bytes() - own, received.bytes() - own, [&] {
           if (own_from) lane_.copy(own_to, own_from, size_t(own));
           if (transfers.empty()) return int(NcclLibrary::success);
           return library().send_receive(communicator_, transfers.data(), int(transfers.size()), lane_.stream());
         }));
  return received;
}

void NcclRank::broadcast(const Tensor& t, int root) {
  const Call call{.operation = Collective::broadcast, .tensor = &t, .root = root};
  if (on_host(call)) return control_->broadcast(t, root);
  const int64_t number = note(call);
  const bool gives = rank() == root;
  const NcclLibrary::Gift gift{root, t.address(), bytes_of(t), size_t(t.bytes())};
  follow(call.operation, put(number, call, gives ? (size() - 1) * t.bytes() : 0, gives ? 0 : t.bytes(), [&] {
           return t.bytes() ? library().broadcast(communicator_, &gift, 1, lane_.stream()) : int(NcclLibrary::success);
         }));
}

Tensor NcclRank::all_gather(const Tensor& t) {
  const Call call{.operation = Collective::all_gather, .tensor = &t};
  if (on_host(call)) return control_->all_gather(t);
  const int64_t number = note(call);
  const std::vector<int64_t> rows = rows_of_all(t.shape(0));
  const Tensor all(t.shape().with(0, sum_of(rows)), t.dtype(), t.device());
  std::vector<NcclLibrary::Gift> gifts;
  std::byte* to = bytes_of(all);
  for (int r = 0; r < size(); ++r) {
    const int64_t bytes = rows[size_t(r)] * row_bytes(t);
    if (bytes) gifts.push_back({r, t.address(), to, size_t(bytes)});
    to += bytes;
  }
  const bool even = std::ranges::all_of(rows, [&](int64_t n) { return n == rows[0]; });
  follow(call.operation, put(number, call, (size() - 1) * t.bytes(), all.bytes() - t.bytes(), [&] {
           if (gifts.empty()) return int(NcclLibrary::success);
           if (even)
             return library().all_gather(communicator_, t.address(), bytes_of(all), size_t(t.bytes()), lane_.stream());
           return library().broadcast(communicator_, gifts.data(), int(gifts.size()), lane_.stream());
         }));
  return all;
}

std::vector<int64_t> NcclRank::rows_of_all(int64_t own) {
  if (size() == 1) return {own};
  meet(Collective::all_gather);
  const Tensor rows = agreed([&] { return control_->all_gather(tensor_of(std::vector<double>{double(own)})); });
  const auto values = rows.data<const double>();
  return {values.begin(), values.end()};
}

void NcclRank::barrier() {
  meet(Collective::barrier);
  control_->barrier();
}

std::unique_ptr<StartedCall> NcclRank::start_all_reduce(const Tensor& t) {
  const Call call{.operation = Collective::all_reduce, .tensor = &t};
  if (on_host(call)) return control_->start_all_reduce(t);
  const int64_t number = note(call), moved = summed_bytes(t, rank(), size());
  const Tensor sum = wide(t);
  Lane::Mark done = put(number, call, moved, moved, [&] {
    if (t.size() == 0) return int(NcclLibrary::success);
    return library().all_reduce(communicator_, sum.address(), bytes_of(sum), size_t(sum.size()), type_of(sum.dtype()),
                                lane_.stream());
  });
  return std::make_unique<StartedSum>(*this, call.operation, std::move(done), t, sum, t);
}

std::unique_ptr<StartedCall> NcclRank::start_reduce_scatter(const Tensor& t) {
  const Call call{.operation = Collective::reduce_scatter, .tensor = &t};
  if (on_host(call)) return control_->start_reduce_scatter(t);
  const int64_t number = note(call);
  const Tensor given = wide(t), sum(t.shape().with(0, t.shape(0) / size()), given.dtype(), t.device());
  const Tensor result = t.dtype() == sum.dtype() ? sum : Tensor(sum.shape(), t.dtype(), t.device());
  Lane::Mark done = put(number, call, t.bytes() - result.bytes(), (size() - 1) * result.bytes(), [&] {
    if (sum.size() == 0) return int(NcclLibrary::success);
    return library().reduce_scatter(communicator_, given.address(), bytes_of(sum), size_t(sum.size()),
                                    type_of(sum.dtype()), lane_.stream());
  });
  return std::make_unique<StartedSum>(*this, call.operation, std::move(done), given, sum, result);
}

void NcclRank::at_step(int64_t step) {
  step_ = step;
  world_->at_step(step);
  control_->at_step(step);
}

std::map<Collective, Traffic> NcclRank::traffic() const {
  std::map<Collective, Traffic> all = world_->measured(traffic_);
  add(all, control_->traffic(), 1);
  add(all, agreeing_, -1);
  return all;
}

void NcclRank::abort(const std::string& reason) {
  world_->fail(text(named(rank(), host(rank())), ": ", reason));
  control_->abort(reason);
}

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(NcclOptions options) {
  check(options.control, "ranks that use NCCL need a communicator for what is on the host");
  Communicator& control = *options.control;
  std::array<std::byte, NcclLibrary::kIdBytes> id{};
  try {
    const NcclLibrary& library = options.library ? *options.library : open_nccl();
    use_device(options.device);
    if (control.rank() == 0)
      if (const int code = library.make_id(id.data()); code != NcclLibrary::success)
        throw Error(text("NCCL gives no id for the ranks to meet by: ", explain_nccl(library, code, nullptr)));
    if (options.share_id) {
      options.share_id(id);
    } else {
      Tensor shared({int64_t(id.size())}, DType::u8);
      std::memcpy(shared.address(), id.data(), id.size());
      control.broadcast(shared, 0);
      std::memcpy(id.data(), shared.address(), id.size());
    }
    const auto world = std::make_shared<NcclWorld>(library, options.device, options.deadline);
    const std::string what = text("the communicator of ", control.size(), " GPU(s), ",
                                  named(control.rank(), control.host(control.rank())), " on ", options.device);
    void* const made = world->open(
        what, nullptr, [&](void** to) { return library.open(to, control.size(), id.data(), control.rank()); });
    return std::make_unique<NcclRank>(world, made, std::move(options.control), "all ranks", options.send_to_self);
  } catch (const Error& e) {
    if (options.control) options.control->abort(e.what());  // the others wait for this rank
    throw;
  }
}

}  // namespace agon
