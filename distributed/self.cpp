#include "distributed/call.h"
#include "distributed/communicator.h"
#include "distributed/host.h"

namespace agon {

namespace {

class Self final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::unique_ptr<Communicator> split(int, int) override {
    meet({.operation = Collective::split});
    return std::make_unique<Self>(failure_);
  }
  Tensor all_to_all(const Tensor& send, std::span<const int64_t> send_rows,
                    std::span<const int64_t> receive_rows) override {
    meet({.operation = Collective::all_to_all, .tensor = &send, .send_rows = send_rows, .receive_rows = receive_rows});
    return send;
  }
  void all_reduce(const Tensor& t) override { meet({.operation = Collective::all_reduce, .tensor = &t}); }
  void broadcast(const Tensor& t, int root) override {
    meet({.operation = Collective::broadcast, .tensor = &t, .root = root});
  }
  Tensor all_gather(const Tensor& t) override {
    meet({.operation = Collective::all_gather, .tensor = &t});
    return t;
  }
  Tensor reduce_scatter(const Tensor& t) override {
    meet({.operation = Collective::reduce_scatter, .tensor = &t});
    return t;
  }
  void barrier() override { meet({.operation = Collective::barrier}); }
  std::string host(int) const override { return this_host(); }
  void at_step(int64_t) override {}  // nobody to wait for
  std::map<Collective, Traffic> traffic() const override { return {}; }
  void abort(const std::string& reason) override { *failure_ = reason; }

  Self() = default;
  explicit Self(std::shared_ptr<std::string> failure) : failure_(std::move(failure)) {}

 private:
  void meet(const Call& call) {
    if (failure_->empty()) {
      const int rank = 0;
      *failure_ = disagreement({&call, 1}, {&rank, 1});
    }
    check(failure_->empty(), call.operation, " failed: ", *failure_);
  }

  std::shared_ptr<std::string> failure_ = std::make_shared<std::string>();  // shared by all this was split from or into
};

}  // namespace

std::unique_ptr<Communicator> make_self_communicator() { return std::make_unique<Self>(); }

}  // namespace agon
