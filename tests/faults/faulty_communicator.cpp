#include "tests/faults/faulty_communicator.h"

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "core/error.h"

namespace agon::testing {

namespace {

/// From now on no file can grow beyond 4 KiB.
void fill_disk() {
  const rlimit limit{4096, 4096};
  check(setrlimit(RLIMIT_FSIZE, &limit) == 0, "setrlimit");
}

struct Pending {
  Fault fault;
  std::string mark;
  int rank, seen = 0;

  void call(Collective kind) {
    if (rank != fault.rank || text(kind) != fault.operation || ++seen < fault.number) return;
    if (fault.how == "slow") return std::this_thread::sleep_for(std::chrono::seconds(1));
    if (seen > fault.number) return;
    if (!mark.empty()) std::ofstream{mark};
    if (fault.how == "full") return fill_disk();
    if (fault.how == "kill") kill(getpid(), SIGKILL);
    if (fault.how == "segv") kill(getpid(), SIGSEGV);
    if (fault.how == "stop") kill(getpid(), SIGSTOP);
    if (fault.how == "exit0") std::_Exit(0);
    if (fault.how == "exit3") std::_Exit(3);
    if (fault.how == "throw") throw Error("a fault that the test makes");
  }
};

class FaultyCommunicator final : public Communicator {
 public:
  FaultyCommunicator(std::unique_ptr<Communicator> inner, std::shared_ptr<Pending> pending)
      : inner_(std::move(inner)), pending_(std::move(pending)) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    pending_->call(Collective::split);
    return std::make_unique<FaultyCommunicator>(inner_->split(color, key), pending_);
  }
  Tensor all_to_all(const Tensor& send, std::span<const int64_t> send_rows,
                    std::span<const int64_t> receive_rows) override {
    pending_->call(Collective::all_to_all);
    return inner_->all_to_all(send, send_rows, receive_rows);
  }
  void all_reduce(const Tensor& t) override {
    pending_->call(Collective::all_reduce);
    inner_->all_reduce(t);
  }
  void broadcast(const Tensor& t, int root) override {
    pending_->call(Collective::broadcast);
    inner_->broadcast(t, root);
  }
  Tensor all_gather(const Tensor& t) override {
    pending_->call(Collective::all_gather);
    return inner_->all_gather(t);
  }
  Tensor reduce_scatter(const Tensor& t) override {
    pending_->call(Collective::reduce_scatter);
    return inner_->reduce_scatter(t);
  }
  void barrier() override {
    pending_->call(Collective::barrier);
    inner_->barrier();
  }
  std::unique_ptr<StartedCall> start_all_reduce(const Tensor& t) override {
    pending_->call(Collective::all_reduce);
    return inner_->start_all_reduce(t);
  }
  std::unique_ptr<StartedCall> start_reduce_scatter(const Tensor& t) override {
    pending_->call(Collective::reduce_scatter);
    return inner_->start_reduce_scatter(t);
  }
  void progress() override { inner_->progress(); }
  std::string host(int rank) const override { return inner_->host(rank); }
  void at_step(int64_t step) override { inner_->at_step(step); }
  std::map<Collective, Traffic> traffic() const override { return inner_->traffic(); }
  void abort(const std::string& reason) override { inner_->abort(reason); }

 private:
  std::unique_ptr<Communicator> inner_;
  std::shared_ptr<Pending> pending_;
};

}  // namespace

Fault parse_fault(const std::string& text) {
  Fault fault;
  if (text.empty()) return fault;
  char colon = 0;
  std::istringstream words(text);
  std::getline(words, fault.how, '@');
  words >> fault.rank >> colon;
  std::getline(words, fault.operation, ':');
  words >> fault.number;
  check(colon == ':' && words && fault.number > 0, "not a fault: ", text, "; expected for example kill@1:all_reduce:7");
  return fault;
}

std::unique_ptr<Communicator> with_fault(std::unique_ptr<Communicator> inner, const Fault& fault,
                                         const std::string& mark) {
  auto pending = std::make_shared<Pending>(Pending{fault, mark, inner->rank()});
  return std::make_unique<FaultyCommunicator>(std::move(inner), std::move(pending));
}

}  // namespace agon::testing
