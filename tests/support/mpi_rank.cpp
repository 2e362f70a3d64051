// A rank that does as it is told, for tests/mpi.sh: mpirun -n N mpi_rank WHAT. Rank 1 is the one to go wrong.

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <numeric>

#include "core/copy.h"
#include "distributed/make.h"
#include "distributed/messages.h"
#include "distributed/mpi.h"

using namespace agon;

namespace {

volatile sig_atomic_t terminated = 0;

/// Every collective once, with messages of many pieces; throws where a value is wrong.
void exchange_in_pieces(Communicator& comm) {
  const int n = comm.size(), me = comm.rank();
  const int64_t rows = 1000;
  const Tensor x({n * rows, 3}, DType::f32);
  for (int64_t i = 0; i < x.size(); ++i) x.data<float>()[size_t(i)] = float(me * 100000 + i);
  const std::vector<int64_t> each(size_t(n), rows);
  const Tensor got = comm.all_to_all(x, each, each);
  for (int64_t i = 0; i < got.size(); ++i) {
    const int64_t from = i / (rows * 3), at = i % (rows * 3);
    check(got.data<float>()[size_t(i)] == float(from * 100000 + me * rows * 3 + at), "all_to_all: element ", i);
  }
  const auto started = comm.start_all_reduce(x);
  comm.progress();
  const Tensor all = comm.all_gather(tensor_of<int32_t>({me}));
  check(all.size() == n && all.data<int32_t>().back() == n - 1, "all_gather");
  started->finish();
  int64_t numbers = 0;  // of all ranks, added up
  for (int r = 0; r < n; ++r) numbers += r;
  for (int64_t i = 0; i < x.size(); ++i)
    check(x.data<float>()[size_t(i)] == float(100000 * numbers + n * i), "all_reduce: element ", i);
}

void go_wrong(const std::string& what) {
  if (what == "late") sleep(600);
  if (what == "killed") raise(SIGKILL);
  if (what == "stopped") raise(SIGSTOP);
  if (what == "crashed") raise(SIGSEGV);
  if (what == "exit-0") _exit(0);
  if (what == "exit-3") _exit(3);
  require(what != "throws", "no such file");
}

void run(Communicator& comm, const std::string& what) {
  const auto part = comm.split(0, comm.rank());
  const Tensor t = Tensor({comm.size() * 1000, 20}, DType::f32).zero();
  part->all_reduce(t);
  comm.at_step(7);
  if (comm.rank() == 1) go_wrong(what);
  if (comm.rank() == 1 && what == "disagrees") part->barrier();
  const std::vector<int64_t> each(size_t(comm.size()), 1000);
  for (int i = 0; what == "stopped-later"; ++i) {
    part->all_to_all(t, each, each);
    if (comm.rank() == 1 && i == 2) raise(SIGSTOP);
  }
  part->all_reduce(t);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  signal(SIGTERM, [](int) { terminated = 1; });
  const CommunicatorOptions options{.deadline = std::chrono::seconds(2),
                                    .asked_to_stop = [] { return terminated != 0; }};
  std::unique_ptr<Communicator> comm;
  try {
    comm = what == "pieces" ? make_message_communicator(make_mpi_link(open_mpi(), 1000), options)
                            : make_communicator("auto", options);
    what == "pieces" ? exchange_in_pieces(*comm) : run(*comm, what);
    std::printf("rank %d of %d: done\n", comm->rank(), comm->size());
    return 0;
  } catch (const Error& e) {
    if (comm) comm->abort(e.what());
    std::fprintf(stderr, "mpi_rank: %s\n", e.what());
    return e.exit_code();
  }
}
