#include "distributed/nccl_stream.h"

#include "core/copy.h"
#include "distributed/least_traffic.h"
#include "distributed/names.h"

namespace agon {

namespace {

void add(std::map<Collective, Traffic>& to, const std::map<Collective, Traffic>& more, int sign) {
  for (const auto& [operation, t] : more) {
    Traffic& sum = to[operation];
    sum.calls += sign * t.calls;
    sum.sent += sign * t.sent;
    sum.received += sign * t.received;
    sum.seconds += sign * t.seconds;
    sum.waited += sign * t.waited;
  }
}

}  // namespace

NcclStream::NcclStream(std::shared_ptr<NcclWorld> world, void* communicator, std::unique_ptr<Communicator> control,
                       std::string name)
    : world_(std::move(world)),
      communicator_(communicator),
      control_(std::move(control)),
      name_(std::move(name)),
      ledger_(control_->size()),
      lane_(world_->device()),
      agreeing_(control_->traffic()) {}

NcclStream::~NcclStream() {
  world_->forget(moved_);
  world_->close(communicator_, std::uncaught_exceptions() > exceptions_);
}

std::string NcclStream::named_operation(Collective operation) const {
  const int rank = control_->rank();
  const int64_t step = world_->step();
  return text(operation, " on ", named(rank, control_->host(rank)), step ? text(" in step ", step) : "");
}

void NcclStream::alive(Collective operation) {
  if (const std::string failure = world_->failure(); !failure.empty()) refuse(operation, failure);
}

void NcclStream::fail(Collective operation, const std::string& why) {
  world_->fail(why);
  refuse(operation, world_->failure());
}

void NcclStream::refuse(Collective operation, const std::string& failure) {
  control_->abort(failure);
  throw Error(text(named_operation(operation), " failed: ", failure));
}

template <class F>
auto NcclStream::agreed(F&& f) {
  const std::map<Collective, Traffic> before = control_->traffic();
  auto result = f();
  add(agreeing_, control_->traffic(), 1);
  add(agreeing_, before, -1);
  return result;
}

void NcclStream::meet(Collective operation) {
  alive(operation);
  const std::string found = agreed([&] { return ledger_.compare(*control_); });
  if (!found.empty()) fail(operation, found);
}

bool NcclStream::on_host(const Call& call) {
  if (!call.tensor || !*call.tensor || call.tensor->device() == device()) return false;
  if (call.tensor->device().kind != Device::cpu)
    fail(call.operation, text(call.operation, " of a tensor on ", call.tensor->device(), ": this rank's are on ",
                              device(), " or on the host"));
  meet(call.operation);
  return true;
}

std::vector<int64_t> NcclStream::numbers_of_all(Collective operation, int64_t own) {
  if (control_->size() == 1) return {own};
  meet(operation);
  const std::vector<double> mine = {double(own)};
  const Tensor all = agreed([&] { return control_->all_gather(tensor_of(mine)); });
  const auto values = all.data<const double>();
  return {values.begin(), values.end()};
}

int64_t NcclStream::note(const Call& call) {
  alive(call.operation);
  const int own = control_->rank(), size = control_->size();
  if (size == 1) {
    if (const std::string wrong = disagreement({&call, 1}, {&own, 1}); !wrong.empty()) fail(call.operation, wrong);
  } else if (const std::string wrong = fault(call, size); !wrong.empty()) {
    fail(call.operation, text(call.operation, ": rank ", own, ' ', wrong));
  }
  return ledger_.note(call);
}

Lane::Mark NcclStream::put(int64_t number, const Call& call, const std::function<int()>& library_call,
                           int64_t all_rows) {
  NcclWorld::Flight flight{.group = name_,
                           .number = number,
                           .what = text(call.operation, " of ", call.tensor->dtype(), ' ', call.tensor->shape()),
                           .bytes = call.tensor->bytes(),
                           .ready = world_->spare_mark(),
                           .done = world_->spare_mark(),
                           .seconds = &moved_[call.operation]};
  lane_.follow_work();
  lane_.set(flight.ready);
  told([&] { world_->put(communicator_, named_operation(call.operation), library_call); });
  lane_.set(flight.done);
  const Traffic moved = least_traffic(call, control_->rank(), control_->size(), all_rows);
  Traffic& so_far = moved_[call.operation];
  ++so_far.calls;
  so_far.sent += moved.sent;
  so_far.received += moved.received;
  Lane::Mark done = flight.done;
  world_->watch(std::move(flight));
  return done;
}

void NcclStream::follow(Collective operation, const Lane::Mark& done) {
  alive(operation);
  Lane::work_follows(device(), done);
}

std::unique_ptr<NcclStream> NcclStream::split(int color, int key) {
  meet(Collective::split);
  auto part = control_->split(color, key);
  const std::string what = named_operation(Collective::split);
  void* const made = told([&] {
    world_->settle(what);  // NCCL wants nothing to be under way
    return world_->open(what, communicator_, [&](void** to) { return library().split(communicator_, color, key, to); });
  });
  return std::make_unique<NcclStream>(world_, made, std::move(part), text("part ", color, " of ", name_));
}

std::map<Collective, Traffic> NcclStream::traffic() const {
  std::map<Collective, Traffic> all = world_->measured(moved_);
  add(all, control_->traffic(), 1);
  add(all, agreeing_, -1);
  return all;
}

void NcclStream::abort(const std::string& reason) {
  const int rank = control_->rank();
  world_->fail(text(named(rank, control_->host(rank)), ": ", reason));
  control_->abort(reason);
}

}  // namespace agon
