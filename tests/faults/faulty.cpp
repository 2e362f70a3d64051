// A program that works in ranks as agon does, one of which misbehaves as $FAULT says (faulty_communicator.h):
//   faulty collectives             calls of every kind, their results checked
//   faulty train CONFIG key=value ... [--resume]
//   faulty launch -n N [--max-restarts K] [--grace S] VERB ...    as `agon launch`
//   faulty rendezvous              a text from rank 0 to all others over the store, by torchrun's variables
// Deadlines come from $DEADLINE, in seconds, and for `train` from the configuration. The fault leaves the file
// $FAULT_ONCE; where that exists there is none.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "apps/config_file.h"
#include "apps/job.h"
#include "apps/launch.h"
#include "apps/rank_keeper.h"
#include "apps/signals.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "distributed/make.h"
#include "distributed/store.h"
#include "distributed/who.h"
#include "tests/faults/faulty_communicator.h"

namespace {

using namespace agon;
using Words = std::vector<std::string>;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::unique_ptr<Communicator> faulty_ranks(const std::string& backend, double deadline) {
  CommunicatorOptions options;
  options.deadline = std::chrono::milliseconds(int64_t(deadline * 1000));
  options.asked_to_stop = [] { return Signals::stop() != 0; };
  const std::string mark = variable("FAULT_ONCE");
  const bool done = !mark.empty() && std::filesystem::exists(mark);
  return testing::with_fault(make_communicator(backend, options),
                             done ? testing::Fault{} : testing::parse_fault(variable("FAULT")), mark);
}

Tensor filled(const Shape& shape, float value) {
  const Tensor t(shape, DType::f32);
  for (float& x : t.data<float>()) x = value;
  return t;
}

void check_filled(const Tensor& t, const Shape& shape, float value, const char* what) {
  check(t.shape() == shape, what, ": ", t.shape(), ", expected ", shape);
  for (const float x : t.data<float>()) check(x == value, what, ": ", x, ", expected ", value);
}

double deadline() { return variable("DEADLINE").empty() ? 60 : std::stod(variable("DEADLINE")); }

int rendezvous() {
  const Who who = who_am_i();
  StoreOptions options;
  options.host = who.master;
  options.port = who.port;
  options.rank = who.rank;
  options.size = who.size;
  options.token = who.token;
  options.deadline = std::chrono::milliseconds(int64_t(deadline() * 1000));
  options.note = [](const std::string& note) { std::fprintf(stderr, "faulty: %s\n", note.c_str()); };
  const auto store = join_store(options);
  if (who.rank == 0) store->publish("text", "from rank 0");
  const std::string found = store->get("text");
  store->barrier();
  std::printf("rank %d has '%s'\n", who.rank, found.c_str());
  return 0;
}

int every_kind_of_call(Communicator& all, int rounds) {
  const int n = all.size(), r = all.rank();
  const int64_t rows = n * (n + 1) / 2;
  const auto sum = float(rows);
  const std::vector<int64_t> two_each(size_t(n), 2);
  for (int round = 1; round <= rounds; ++round) {
    all.at_step(round);
    const Tensor t = filled({3, 5}, float(r + 1));
    all.all_reduce(t);
    check_filled(t, {3, 5}, sum, "all_reduce");
    check_filled(all.start_all_reduce(filled({7}, float(r + 1)))->finish(), {7}, sum, "all_reduce");
    check_filled(all.reduce_scatter(filled({n * 2, 3}, float(r + 1))), {2, 3}, sum, "reduce_scatter");
    check(all.all_gather(filled({r + 1, 2}, 1)).shape() == Shape{rows, 2}, "all_gather");
    check_filled(all.all_to_all(filled({n * 2, 4}, 1), two_each, two_each), {n * 2, 4}, 1, "all_to_all");
    const Tensor b = filled({4}, float(r));
    all.broadcast(b, n - 1);
    check_filled(b, {4}, float(n - 1), "broadcast");
    all.barrier();
    const auto half = all.split(r % 2, r);
    check(half->size() == (n + 1 - r % 2) / 2, "split");
  }
  if (r == 0) std::printf("done\n");
  return 0;
}

int train_faulty(const Words& words) {
  TrainArguments arguments;
  arguments.config = words.at(1);
  for (size_t i = 2; i < words.size(); ++i)
    if (words[i] == "--resume")
      arguments.resume = true;
    else
      arguments.overrides.push_back(words[i]);
  const Config config = load_config(arguments.config, arguments.overrides);
  const Signals signals;
  return run_as_rank(faulty_ranks(config.parallel.backend, config.parallel.deadline_s),
                     [&](Communicator& all) { return train(arguments, all); });
}

int launch_faulty(Words words) {
  LaunchArguments arguments;
  size_t i = 1;
  for (; i + 1 < words.size() && words[i][0] == '-'; i += 2) {
    if (words[i] == "-n") arguments.ranks = std::stoi(words[i + 1]);
    if (words[i] == "--max-restarts") arguments.max_restarts = std::stoi(words[i + 1]);
    if (words[i] == "--grace") arguments.grace = std::stod(words[i + 1]);
  }
  arguments.words.assign(words.begin() + ptrdiff_t(i), words.end());
  return launch(arguments);
}

int run(const Words& words) {
  const std::string verb = words.empty() ? "" : words[0];
  if (verb == "collectives") {
    const Signals signals;
    return run_as_rank(faulty_ranks("mpi", deadline()), [](Communicator& all) { return every_kind_of_call(all, 20); });
  }
  if (verb == "train") return train_faulty(words);
  if (verb == "rendezvous") return rendezvous();
  if (verb == "launch") return launch_faulty(words);
  if (verb == "keep-rank") return keep_rank(words.at(1), who_am_i().rank, Words(words.begin() + 2, words.end()));
  throw UserError("faulty: unknown verb '" + verb + "'");
}

}  // namespace

int main(int argc, char** argv) try { return run(Words(argv + 1, argv + argc)); } catch (const Error& e) {
  std::fflush(stdout);
  std::fprintf(stderr, "faulty: %s\n", e.what());
  return e.exit_code();
} catch (const std::exception& e) {
  std::fflush(stdout);
  std::fprintf(stderr, "faulty: %s\n", e.what());
  return 1;
}
