// Ranks that are processes, on one GPU by NCCL, for tests/nccl.sh and scripts/gpu-check: nccl_rank N WHAT [DEVICE].
//   collectives  makes every call and looks at every value
//   disagrees    rank 1 calls something else: all ranks name what, where they meet next
//   late         rank 1 stays away: the others fail when the deadline is over, naming the call
// With the device "cpu" the ranks exchange messages without NCCL: what the test itself needs.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "core/gpu.h"
#include "distributed/messages.h"
#include "distributed/nccl.h"
#include "tests/support/every_collective.h"
#include "tests/support/process_link.h"

using namespace agon;
using namespace agon::testing;

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kDeadline{20};  // the first call of two ranks connects them, which takes its time

std::string failure_of(Communicator& comm, Device device, bool late) {
  const Tensor t({1000}, DType::f32, device), longer({2000}, DType::f32, device);
  fill(t, 1);
  fill(longer, 1);
  comm.at_step(3);
  comm.all_reduce(t);
  try {
    if (comm.rank() == 1 && late) std::this_thread::sleep_for(kDeadline + std::chrono::seconds(15));
    if (!(comm.rank() == 1 && late)) comm.all_reduce(comm.rank() == 1 ? longer : t);
    comm.barrier();
  } catch (const Error& e) { return e.what(); }
  return "";
}

void expect(const std::string& message, const std::string& part) {
  check(message.find(part) != std::string::npos, "expected \"", part, "\" in \"", message, '"');
}

void run(Communicator& comm, Device device, const std::string& what) {
  const bool by_nccl = device.kind == Device::cuda;
  if (what == "collectives") {
    EveryCollective(comm, device, !by_nccl).run();
    if (comm.size() > 1) EveryCollective(comm, device, !by_nccl).run_in_parts();
    return;
  }
  const bool late = what == "late";
  require(late || what == "disagrees", "expected collectives, disagrees or late, got ", what);
  const auto begin = Clock::now();
  const std::string message = failure_of(comm, device, late);
  const auto took = std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - begin);
  std::printf("rank %d after %ld s: %s\n", comm.rank(), long(took.count()), message.c_str());
  expect(message, "step 3");
  if (!late) expect(message, by_nccl ? "call 2 of the group on its GPUs: the ranks disagree" : "the ranks disagree");
  if (late) check(took < 2 * kDeadline, "the failure came after ", took.count(), " s");
}

int one_rank(int rank, const std::vector<int>& sockets, const std::string& what, Device device) {
  const bool by_nccl = device.kind == Device::cuda;
  if (by_nccl) {
    // Two ranks on one GPU have to look like ranks on different machines.
    setenv("NCCL_HOSTID", text("rank-", rank).c_str(), 1);
    setenv("NCCL_SOCKET_IFNAME", "lo", 1);
    setenv("NCCL_IB_DISABLE", "1", 1);
  }
  std::unique_ptr<Communicator> comm;
  try {
    comm = make_message_communicator(std::make_unique<ProcessLink>(rank, sockets), {.deadline = kDeadline});
    if (by_nccl) {
      NcclOptions options;
      options.device = device;
      options.control = std::move(comm);
      options.deadline = kDeadline;
      comm = make_nccl_communicator(std::move(options));
    }
    run(*comm, device, what);
    std::printf("rank %d of %d, %s: done\n", rank, int(sockets.size()), what.c_str());
    std::fflush(stdout);
    if (what == "collectives") comm.reset();
    return 0;
  } catch (const Error& e) {
    if (comm) comm->abort(e.what());
    std::fprintf(stderr, "nccl_rank %d: %s\n", rank, e.what());
    return e.exit_code();
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int n = argc > 1 ? std::atoi(argv[1]) : 0;
  if (n < 1 || argc < 3) return std::fprintf(stderr, "usage: nccl_rank N collectives|disagrees|late [cpu]\n"), 2;
  const Device device = argc > 3 && std::string(argv[3]) == "cpu" ? Device{} : Device{Device::cuda, 0};
  int worst = 0;
  for (const int code : run_on_processes(
           n, [&](int rank, const std::vector<int>&sockets) { return one_rank(rank, sockets, argv[2], device); }, 120))
    worst = std::max(worst, code);
  return worst;
}
