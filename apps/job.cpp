#include "apps/job.h"

#include <cstdio>
#include <exception>

#include "apps/signals.h"
#include "distributed/make.h"
#include "distributed/names.h"
#include "distributed/together.h"
#include "distributed/who.h"

namespace agon {

namespace {

/// Says why this rank fails, to the user and to the other ranks, while it still can: the communicator may end the
/// process when it ends.
int fail(std::unique_ptr<Communicator> all, const char* what, int code) {
  const std::string name = named(all->rank(), all->host(all->rank()));
  const bool known = std::string(what).find(name) != std::string::npos;
  std::fflush(stdout);
  std::fprintf(stderr, "agon: %s\n", known ? what : text(name, ": ", what).c_str());
  all->abort(what);
  all.reset();
  return code;
}

}  // namespace

int run_as_rank(std::unique_ptr<Communicator> all, const std::function<int(Communicator&)>& body) {
  if (all->size() == 1) return body(*all);
  const bool first = all->rank() == 0;
  int code = 0;
  try {
    code = body(*all);
  } catch (const Error& e) {
    if (!dynamic_cast<const Agreed*>(&e)) return fail(std::move(all), e.what(), e.exit_code());
    if (first) std::fprintf(stderr, "agon: %s\n", e.what());
    code = e.exit_code();
  } catch (const std::exception& e) { return fail(std::move(all), e.what(), 1); }
  all.reset();  // after the exception: one under way is how a communicator knows that the job has failed
  return code;
}

int run_as_rank(const ParallelOptions& options, const std::function<int(Communicator&)>& body, Device device) {
  CommunicatorOptions o;
  o.deadline = std::chrono::milliseconds(int64_t(options.deadline_s * 1000));
  o.asked_to_stop = [] { return Signals::stop() != 0; };
  o.device = device;
  const bool gpus = device.kind == Device::cuda && options.backend == "auto" && who_am_i().size > 1;
  return run_as_rank(make_communicator(gpus ? "nccl" : options.backend, o), body);
}

}  // namespace agon
