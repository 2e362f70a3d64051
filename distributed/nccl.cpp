#include "distributed/nccl.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/copy.h"
#include "core/gpu.h"
#include "distributed/names.h"
#include "distributed/nccl_open.h"
#include "distributed/nccl_stream.h"

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

/// A sum in the stream.
class StartedSum final : public StartedCall {
 public:
  /// The device reads `given` and writes `sum`; `result` is what finish() returns: `sum`, or a bf16 tensor that takes
  /// its values.
  StartedSum(NcclStream& stream, Collective operation, Lane::Mark done, Tensor given, Tensor sum, Tensor result)
      : stream_(stream),
        operation_(operation),
        done_(std::move(done)),
        given_(std::move(given)),
        sum_(std::move(sum)),
        result_(std::move(result)) {}
  ~StartedSum() override {
    // The tensors' memory may be used again only after the call.
    if (done_) Lane::work_follows(given_.device(), done_);
  }
  Tensor finish() override {
    stream_.follow(operation_, done_);
    done_ = {};
    if (sum_.address() != result_.address()) copy(result_, sum_);
    return result_;
  }

 private:
  NcclStream& stream_;
  Collective operation_;
  Lane::Mark done_;
  Tensor given_, sum_, result_;
};

class NcclRank final : public Communicator {
 public:
  NcclRank(std::unique_ptr<NcclStream> stream, bool send_to_self)
      : stream_(std::move(stream)), send_to_self_(send_to_self) {}

  int rank() const override { return control().rank(); }
  int size() const override { return control().size(); }
  std::string host(int rank) const override { return control().host(rank); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return std::make_unique<NcclRank>(stream_->split(color, key), send_to_self_);
  }
  Tensor all_to_all(const Tensor& send, std::span<const int64_t> send_rows,
                    std::span<const int64_t> receive_rows) override;
  void broadcast(const Tensor& t, int root) override;
  Tensor all_gather(const Tensor& t) override;
  void all_reduce(const Tensor& t) override { start_all_reduce(t)->finish(); }
  Tensor reduce_scatter(const Tensor& t) override { return start_reduce_scatter(t)->finish(); }
  std::unique_ptr<StartedCall> start_all_reduce(const Tensor& t) override;
  std::unique_ptr<StartedCall> start_reduce_scatter(const Tensor& t) override;
  void barrier() override {
    stream_->meet(Collective::barrier);
    control().barrier();
  }
  void progress() override { control().progress(); }
  void at_step(int64_t step) override {
    stream_->world().at_step(step);
    control().at_step(step);
  }
  std::map<Collective, Traffic> traffic() const override { return stream_->traffic(); }
  std::vector<double> waited_for() const override { return control().waited_for(); }
  void abort(const std::string& reason) override { stream_->abort(reason); }

 private:
  Communicator& control() const { return stream_->control(); }
  const NcclLibrary& library() const { return stream_->library(); }
  void* communicator() const { return stream_->communicator(); }
  void* stream() const { return stream_->lane().stream(); }

  const std::unique_ptr<NcclStream> stream_;
  const bool send_to_self_;
};

Tensor NcclRank::all_to_all(const Tensor& send, std::span<const int64_t> send_rows,
                            std::span<const int64_t> receive_rows) {
  const Call call{
      .operation = Collective::all_to_all, .tensor = &send, .send_rows = send_rows, .receive_rows = receive_rows};
  if (stream_->on_host(call)) return control().all_to_all(send, send_rows, receive_rows);
  const int64_t number = stream_->note(call), row = row_bytes(send), own = send_rows[size_t(rank())] * row;
  const Tensor received(send.shape().with(0, sum_of(receive_rows)), send.dtype(), send.device());
  std::vector<NcclLibrary::Transfer> transfers;
  std::byte *from = bytes_of(send), *to = bytes_of(received), *own_from = from, *own_to = to;
  for (int r = 0; r < size(); ++r) {
    const int64_t out = send_rows[size_t(r)] * row, in = receive_rows[size_t(r)] * row;
    if (r == rank()) own_from = from, own_to = to;
    if ((out || in) && (r != rank() || send_to_self_)) transfers.push_back({r, from, size_t(out), to, size_t(in)});
    from += out;
    to += in;
  }
  const auto put = [&] {
    if (!send_to_self_) stream_->lane().copy(own_to, own_from, size_t(own));
    if (transfers.empty()) return int(NcclLibrary::success);
    return library().send_receive(communicator(), transfers.data(), int(transfers.size()), stream());
  };
  stream_->follow(call.operation, stream_->put(number, call, put));
  return received;
}

void NcclRank::broadcast(const Tensor& t, int root) {
  const Call call{.operation = Collective::broadcast, .tensor = &t, .root = root};
  if (stream_->on_host(call)) return control().broadcast(t, root);
  const int64_t number = stream_->note(call);
  const NcclLibrary::Gift gift{root, t.address(), bytes_of(t), size_t(t.bytes())};
  stream_->follow(call.operation, stream_->put(number, call, [&] {
    return t.bytes() ? library().broadcast(communicator(), &gift, 1, stream()) : int(NcclLibrary::success);
  }));
}

Tensor NcclRank::all_gather(const Tensor& t) {
  const Call call{.operation = Collective::all_gather, .tensor = &t};
  if (stream_->on_host(call)) return control().all_gather(t);
  const int64_t number = stream_->note(call);
  const std::vector<int64_t> rows = stream_->numbers_of_all(call.operation, t.shape(0));
  const Tensor all(t.shape().with(0, sum_of(rows)), t.dtype(), t.device());
  std::vector<NcclLibrary::Gift> gifts;
  std::byte* to = bytes_of(all);
  for (int r = 0; r < size(); ++r) {
    const int64_t bytes = rows[size_t(r)] * row_bytes(t);
    if (bytes) gifts.push_back({r, t.address(), to, size_t(bytes)});
    to += bytes;
  }
  const bool even = std::ranges::all_of(rows, [&](int64_t n) { return n == rows[0]; });
  const auto put = [&] {
    if (gifts.empty()) return int(NcclLibrary::success);
    if (even) return library().all_gather(communicator(), t.address(), bytes_of(all), size_t(t.bytes()), stream());
    return library().broadcast(communicator(), gifts.data(), int(gifts.size()), stream());
  };
  stream_->follow(call.operation, stream_->put(number, call, put, all.shape(0)));
  return all;
}

std::unique_ptr<StartedCall> NcclRank::start_all_reduce(const Tensor& t) {
  const Call call{.operation = Collective::all_reduce, .tensor = &t};
  if (stream_->on_host(call)) return control().start_all_reduce(t);
  const int64_t number = stream_->note(call);
  const Tensor sum = wide(t);
  const auto put = [&] {
    if (t.size() == 0) return int(NcclLibrary::success);
    return library().all_reduce(communicator(), sum.address(), bytes_of(sum), size_t(sum.size()), type_of(sum.dtype()),
                                stream());
  };
  Lane::Mark done = stream_->put(number, call, put);
  return std::make_unique<StartedSum>(*stream_, call.operation, std::move(done), t, sum, t);
}

std::unique_ptr<StartedCall> NcclRank::start_reduce_scatter(const Tensor& t) {
  const Call call{.operation = Collective::reduce_scatter, .tensor = &t};
  if (stream_->on_host(call)) return control().start_reduce_scatter(t);
  const int64_t number = stream_->note(call);
  const Tensor given = wide(t), sum(t.shape().with(0, t.shape(0) / size()), given.dtype(), t.device());
  const Tensor result = t.dtype() == sum.dtype() ? sum : Tensor(sum.shape(), t.dtype(), t.device());
  const auto put = [&] {
    if (sum.size() == 0) return int(NcclLibrary::success);
    return library().reduce_scatter(communicator(), given.address(), bytes_of(sum), size_t(sum.size()),
                                    type_of(sum.dtype()), stream());
  };
  Lane::Mark done = stream_->put(number, call, put);
  return std::make_unique<StartedSum>(*stream_, call.operation, std::move(done), given, sum, result);
}

/// Gives all ranks the id that rank 0 makes.
void share_id(std::span<std::byte> id, const NcclLibrary& library, const NcclOptions& options) {
  if (options.control->rank() == 0)
    if (const int code = library.make_id(id.data()); code != NcclLibrary::success)
      throw Error(text("NCCL gives no id for the ranks to meet by: ", explain_nccl(library, code, nullptr)));
  if (options.share_id) return options.share_id(id);
  Tensor shared({int64_t(id.size())}, DType::u8);
  std::memcpy(shared.address(), id.data(), id.size());
  options.control->broadcast(shared, 0);
  std::memcpy(id.data(), shared.address(), id.size());
}

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(NcclOptions options) {
  check(options.control, "ranks that use NCCL need a communicator for what is on the host");
  try {
    const NcclLibrary& library = options.library ? *options.library : open_nccl();
    use_device(options.device);
    std::array<std::byte, NcclLibrary::kIdBytes> id{};
    share_id(id, library, options);
    const int rank = options.control->rank(), size = options.control->size();
    const auto world = std::make_shared<NcclWorld>(library, options.device, options.deadline);
    const std::string what = text("the communicator of ", size, " GPU(s), ", named(rank, options.control->host(rank)),
                                  " on ", options.device);
    void* const made = world->open(what, nullptr, [&](void** to) { return library.open(to, size, id.data(), rank); });
    return std::make_unique<NcclRank>(
        std::make_unique<NcclStream>(world, made, std::move(options.control), "all ranks"), options.send_to_self);
  } catch (const Error& e) {
    if (options.control) options.control->abort(e.what());  // the others wait for this rank
    throw;
  }
}

}  // namespace agon
