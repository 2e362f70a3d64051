#pragma once
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <vector>

#include "core/copy.h"
#include "core/random.h"
#include "distributed/communicator.h"

namespace agon::testing {

/// Makes every call of a Communicator, with tensors on `device`, in sizes that divide nothing and in large ones, and
/// throws Error where a value is wrong. Sums may be made in any order. `small` leaves out what takes long on a CPU.
class EveryCollective {
 public:
  EveryCollective(Communicator& comm, Device device, bool small = false)
      : comm_(comm), device_(device), small_(small), n_(comm.size()), me_(comm.rank()) {}

  void run() {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32}) {
      for (const int64_t size : {int64_t(1), int64_t(7), int64_t(0), large(1 << 20) + 3}) all_reduce({size}, dtype);
      for (const int64_t rows : {int64_t(1), int64_t(3), large(1000)}) reduce_scatter({rows * n_, 5}, dtype);
    }
    all_reduce({large(16 << 20)}, DType::f32);
    several_at_once();
    all_to_all([](int, int) { return 3; });
    all_to_all([](int from, int to) { return (from + 2 * to) % 3; });
    all_to_all([](int, int) { return 0; });
    all_to_all([](int from, int to) { return from == to ? 5 : 0; });
    all_to_all([&](int from, int to) { return from == 0 ? large(1000) * to : 0; });
    all_to_all([&](int, int) { return large(50'000); });
    all_gather([](int) { return 3; });
    all_gather([](int r) { return 2 * r; });
    all_gather([](int) { return 0; });
    all_gather([&](int r) { return large(100'000) + r; });
    for (int root = 0; root < n_; ++root) broadcast(root);
    on_the_host();
    comm_.barrier();
  }

  /// Parts of the ranks, at work beside all of them.
  void run_in_parts() {
    const auto part = comm_.split(me_ % 2, -me_);
    int members = 0, sum = 0;
    for (int r = me_ % 2; r < n_; r += 2) ++members, sum += r;
    check(part->size() == members, "a part of ", part->size(), " ranks, expected ", members);
    const Tensor whole({1000}, DType::f32, device_), own({1000}, DType::f32, device_);
    fill(whole, me_);
    fill(own, me_);
    const auto started = comm_.start_all_reduce(whole);
    part->all_reduce(own);
    started->finish();
    expect(
        "a part's all_reduce", own, [&](int64_t) { return double(sum); }, 0);
    expect(
        "all_reduce beside it", whole, [&](int64_t) { return double(n_ * (n_ - 1) / 2); }, 0);
    EveryCollective(*part, device_, small_).run();
  }

 private:
  int64_t large(int64_t n) const { return small_ ? n / 1000 : n; }
  using Rows = std::function<int64_t(int from, int to)>;

  Tensor brought(int rank, Shape shape, DType dtype) const {
    const Tensor t(shape, DType::f64);
    fill_normal(t, {5, uint64_t(rank)}, 100);
    return converted(t, dtype);
  }

  void expect(const char* what, const Tensor& got, const std::function<double(int64_t)>& value,
              double tolerance) const {
    check(got.device() == device_, what, " gave a tensor on ", got.device());
    const Tensor here = converted(on_host(got), DType::f64);
    const auto values = here.data<const double>();
    for (int64_t i = 0; i < got.size(); ++i) {
      const double wanted = value(i), found = values[size_t(i)];
      check(std::abs(found - wanted) <= tolerance, what, " of ", got.dtype(), ' ', got.shape(), " on rank ", me_,
            " of ", n_, ": element ", i, " is ", found, ", expected ", wanted);
    }
  }

  /// Checks elements from `at` on of the sum of what all ranks bring.
  void expect_sum(const char* what, const Tensor& got, Shape whole, int64_t at) const {
    std::vector<double> sum(size_t(got.size()), 0);
    double largest = 0;
    for (int r = 0; r < n_; ++r) {
      const Tensor t = converted(brought(r, whole, got.dtype()), DType::f64);
      for (int64_t i = 0; i < got.size(); ++i) sum[size_t(i)] += t.data<const double>()[size_t(at + i)];
    }
    for (const double v : sum) largest = std::max(largest, std::abs(v));
    const double unit = got.dtype() == DType::bf16 ? 0x1p-8 : got.dtype() == DType::f32 ? n_ * 0x1p-22 : n_ * 0x1p-50;
    expect(
        what, got, [&](int64_t i) { return sum[size_t(i)]; }, got.dtype() == DType::i32 ? 0 : unit * largest);
  }

  void all_reduce(Shape shape, DType dtype) {
    const Tensor t = on_device(brought(me_, shape, dtype), device_), u = clone(t);
    comm_.all_reduce(t);
    expect_sum("all_reduce", t, shape, 0);
    const auto started = comm_.start_all_reduce(u);
    comm_.progress();
    expect_sum("all_reduce that was started", started->finish(), shape, 0);
  }

  void reduce_scatter(Shape shape, DType dtype) {
    const Tensor t = on_device(brought(me_, shape, dtype), device_);
    const Tensor block = comm_.reduce_scatter(t);
    check(block.shape() == shape.with(0, shape[0] / n_), "reduce_scatter gave ", block.shape());
    expect_sum("reduce_scatter", block, shape, me_ * block.size());
    expect_sum("reduce_scatter that was started", comm_.start_reduce_scatter(t)->finish(), shape, me_ * block.size());
  }

  /// Calls under way together, and work of the device between them.
  void several_at_once() {
    std::vector<Tensor> sums;
    std::vector<std::unique_ptr<StartedCall>> started;
    for (int i = 0; i < 8; ++i) {
      sums.emplace_back(Shape{large(100'000) + i}, DType::f32, device_);
      fill(sums.back(), me_ + i);
      started.push_back(comm_.start_all_reduce(sums.back()));
      all_to_all([](int, int) { return 10; });
    }
    for (int i = 0; i < 8; ++i) {
      const double sum = n_ * (n_ - 1) / 2 + n_ * i;
      expect(
          "one of several sums", started[size_t(i)]->finish(), [&](int64_t) { return sum; }, 0);
    }
  }

  void all_to_all(const Rows& rows) {
    std::vector<int64_t> send, receive;
    std::vector<int32_t> given, wanted;
    for (int r = 0; r < n_; ++r) {
      send.push_back(rows(me_, r));
      receive.push_back(rows(r, me_));
      for (int64_t i = 0; i < 3 * send.back(); ++i) given.push_back(int32_t(1'000'000 * (8 * me_ + r) + i));
      for (int64_t i = 0; i < 3 * receive.back(); ++i) wanted.push_back(int32_t(1'000'000 * (8 * r + me_) + i));
    }
    const Tensor x = tensor_of(given).reshape({int64_t(given.size() / 3), 3});
    const Tensor y = comm_.all_to_all(on_device(x, device_), send, receive);
    check(y.size() == int64_t(wanted.size()), "all_to_all gave ", y.shape());
    expect(
        "all_to_all", y, [&](int64_t i) { return double(wanted[size_t(i)]); }, 0);
  }

  void all_gather(const std::function<int64_t(int)>& rows) {
    std::vector<double> wanted;
    for (int r = 0; r < n_; ++r) wanted.insert(wanted.end(), size_t(rows(r) * 2), r);
    const Tensor t({rows(me_), 2}, DType::bf16, device_);
    fill(t, me_);
    const Tensor all = comm_.all_gather(t);
    check(all.shape() == Shape{int64_t(wanted.size() / 2), 2}, "all_gather gave ", all.shape());
    expect(
        "all_gather", all, [&](int64_t i) { return wanted[size_t(i)]; }, 0);
  }

  void broadcast(int root) {
    for (const int64_t size : {int64_t(0), int64_t(5), large(1'000'000) + 3}) {
      const Tensor t({size}, DType::f32, device_);
      fill(t, me_ + 1);
      comm_.broadcast(t, root);
      expect(
          "broadcast", t, [&](int64_t) { return root + 1.0; }, 0);
    }
  }

  void on_the_host() {
    const Tensor t = tensor_of(std::vector<double>{1.0, double(me_)});
    comm_.all_reduce(t);
    check(t.data<const double>()[0] == n_, "all_reduce on the host gave ", t.data<const double>()[0]);
  }

  Communicator& comm_;
  const Device device_;
  const bool small_;
  const int n_, me_;
};

}  // namespace agon::testing
