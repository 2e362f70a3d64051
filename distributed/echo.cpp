#include "distributed/echo.h"

#include <algorithm>
#include <numeric>

#include "core/copy.h"
#include "distributed/host.h"
#include "distributed/least_traffic.h"
#include "distributed/sum.h"

namespace agon {

namespace {

int64_t row_size(const Tensor& t) { return t.shape().with(0, 1).size(); }

/// The sum of `size` tensors like t.
Tensor times(const Tensor& t, int size) {
  const Tensor here = on_host(t), sum(t.shape(), t.dtype());
  const std::vector<const void*> from(size_t(size), here.address());
  void* const to = const_cast<void*>(sum.address());
  sum_in_order(t.dtype(), t.size(), from, {&to, 1});
  return on_device(sum, t.device());
}

class Echo final : public Communicator {
 public:
  Echo(int size, std::vector<int> parts) : size_(size), parts_(std::move(parts)) {}
  int rank() const override { return 0; }
  int size() const override { return size_; }

  std::unique_ptr<Communicator> split(int color, int key) override {
    note({.operation = Collective::split, .color = color, .key = key});
    check(splits_ < parts_.size(), "an echo of ", size_, " ranks was made for ", parts_.size(), " splits");
    return std::make_unique<Echo>(parts_[splits_++], std::vector<int>());
  }
  Tensor all_to_all(const Tensor& send, std::span<const int64_t> send_rows,
                    std::span<const int64_t> receive_rows) override {
    note({.operation = Collective::all_to_all, .tensor = &send, .send_rows = send_rows, .receive_rows = receive_rows});
    const int64_t rows = std::accumulate(receive_rows.begin(), receive_rows.end(), int64_t(0)), each = row_size(send);
    const Tensor received(send.shape().with(0, rows), send.dtype(), send.device());
    if (!std::ranges::equal(send_rows, receive_rows)) fill(received, 0);
    int64_t from = 0, to = 0;
    for (size_t r = 0; r < size_t(size_); ++r) {
      const int64_t n = std::min(send_rows[r], receive_rows[r]) * each;
      if (n) copy(received.part(to * each, n), send.part(from * each, n));
      from += send_rows[r];
      to += receive_rows[r];
    }
    return received;
  }
  void all_reduce(const Tensor& t) override {
    note({.operation = Collective::all_reduce, .tensor = &t});
    if (t.size()) copy(t, times(t, size_));
  }
  void broadcast(const Tensor& t, int root) override {
    note({.operation = Collective::broadcast, .tensor = &t, .root = root});
  }
  Tensor all_gather(const Tensor& t) override {
    note({.operation = Collective::all_gather, .tensor = &t}, size_ * (t.shape().rank() ? t.shape(0) : 0));
    const Tensor all(t.shape().with(0, size_ * t.shape(0)), t.dtype(), t.device());
    for (int64_t r = 0; r < size_ && t.size(); ++r) copy(all.part(r * t.size(), t.size()), t);
    return all;
  }
  Tensor reduce_scatter(const Tensor& t) override {
    note({.operation = Collective::reduce_scatter, .tensor = &t});
    const Shape shape = t.shape().with(0, t.shape(0) / size_);
    return times(t.part(0, shape.size()), size_).reshape(shape);
  }
  void barrier() override { note({.operation = Collective::barrier}); }

  std::string host(int) const override { return this_host(); }
  void at_step(int64_t) override {}
  std::map<Collective, Traffic> traffic() const override { return traffic_; }
  void abort(const std::string& reason) override { failure_ = reason; }

 private:
  void note(const Call& call, int64_t all_rows = 0) {
    if (failure_.empty()) failure_ = fault(call, size_);
    if (!failure_.empty()) throw Error(text(call.operation, " failed: ", failure_));
    const Traffic more = least_traffic(call, 0, size_, all_rows);
    Traffic& moved = traffic_[call.operation];
    ++moved.calls;
    moved.sent += more.sent;
    moved.received += more.received;
  }

  const int size_;
  const std::vector<int> parts_;
  size_t splits_ = 0;
  std::string failure_;
  std::map<Collective, Traffic> traffic_;
};

}  // namespace

std::unique_ptr<Communicator> make_echo(int size, std::vector<int> parts) {
  check(size >= 1, "an echo has at least one rank, got ", size);
  return std::make_unique<Echo>(size, std::move(parts));
}

}  // namespace agon
