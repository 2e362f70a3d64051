#include "apps/supervisor.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <set>
#include <sstream>

#include "apps/processes.h"
#include "tests/apps/forked.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// A supervised job whose ranks run a script, in which $0 is a folder of the test's.
struct Supervised {
  TemporaryFolder notes, own;
  Descriptor asks;
  pid_t process = 0;

  explicit Supervised(int ranks, const std::string& script,
                      std::chrono::milliseconds grace = std::chrono::seconds(20)) {
    int ends[2];
    check(pipe2(ends, O_CLOEXEC) == 0, "pipe");
    const Descriptor reading(ends[0]);
    asks = Descriptor(ends[1]);
    process = start_forked([&] {
      asks.close();
      dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
      adopt_orphans();
      Job job;
      job.command = {"/bin/sh", "-c", script, notes.path()};
      job.ranks = ranks;
      job.grace = grace;
      const JobOutcome outcome = Supervisor(job, own.path(), reading.get()).run();
      put(notes / "outcome", text(outcome.code, outcome.may_restart ? " restart " : " ", outcome.message));
      return descendants().empty() ? 0 : 1;
    });
  }
  /// "CODE [restart] MESSAGE", when all processes of the job are gone.
  std::string outcome() {
    CHECK(wait_for(process) == 0);
    return contents_of(notes / "outcome");
  }
  /// Waits for files NAME0, NAME1, ... of so many ranks.
  void await(const std::string& name, int ranks) const {
    for (int rank = 0; rank < ranks; ++rank)
      while (!std::filesystem::exists(notes / (name + std::to_string(rank)))) usleep(1000);
  }
  void ask(int signal) const {
    const auto byte = char(signal);
    CHECK(write(asks.get(), &byte, 1) == 1);
  }
};

const std::string kSleep = "touch $0/ready$RANK; sleep 100; ";
/// Notes each SIGTERM, and ends after it as a rank that has saved.
const std::string kSaves =
    "trap 'echo TERM >> $0/signals$RANK; exit 143' TERM; touch $0/ready$RANK; "
    "while :; do sleep 0.01; done";

}  // namespace

TEST_CASE("supervisor: ranks that all end well, each knowing who it is") {
  Supervised job(3,
                 "echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR > $0/who$RANK; "
                 "echo $MASTER_PORT $AGON_TOKEN > $0/store$RANK");
  CHECK(job.outcome() == "0 ");
  std::set<std::string> stores;
  for (int rank = 0; rank < 3; ++rank) {
    CHECK(contents_of(job.notes / text("who", rank)) == text(rank, " 3 ", rank, " 3 127.0.0.1\n"));
    stores.insert(contents_of(job.notes / text("store", rank)));
  }
  REQUIRE(stores.size() == 1);
  int port = 0;
  std::string token;
  std::istringstream(*stores.begin()) >> port >> token;
  CHECK(port > 0);
  CHECK(token.size() == 32);
}

TEST_CASE("supervisor: a rank that fails is named, and the others are ended") {
  for (const auto& [end, expected] :
       {std::pair("exit 3", "ended with exit code 3"), std::pair("kill -9 $$", "was killed by SIGKILL (Killed)"),
        std::pair("kill -SEGV $$", "was killed by SIGSEGV (Segmentation fault)")}) {
    Supervised job(3, text("[ $RANK = 1 ] && ", end, "; sleep 100"));
    const std::string outcome = job.outcome();
    CHECK(contains(outcome, "1 restart rank 1 of 3 ("));
    CHECK(contains(outcome, expected));
  }
}

TEST_CASE("supervisor: a user's mistake") {
  Supervised job(2, "exit 2");
  CHECK(contains(job.outcome(), "2 rank "));
}

TEST_CASE("supervisor: after a failure the others get SIGTERM, and time for last words, not for more") {
  Supervised job(3,
                 "[ $RANK = 0 ] && { while ! [ -e $0/ready1 ] || ! [ -e $0/ready2 ]; do sleep 0.01; done; exit 1; }; "
                 "trap 'echo words > $0/words$RANK; [ $RANK = 1 ] && exit 1' TERM; touch $0/ready$RANK; "
                 "while :; do sleep 0.01; done");
  const auto start = Clock::now();
  CHECK(contains(job.outcome(), "rank 0 of 3"));
  CHECK(Clock::now() - start < std::chrono::seconds(20));
  CHECK(contents_of(job.notes / "words1") == "words\n");
  CHECK(contents_of(job.notes / "words2") == "words\n");
}

TEST_CASE("supervisor: a rank that is stopped is ended too") {
  Supervised job(2,
                 "[ $RANK = 1 ] && { touch $0/ready1; kill -STOP $$; }; "
                 "while ! [ -e $0/ready1 ]; do sleep 0.01; done; exit 5");
  CHECK(contains(job.outcome(), "rank 0 of 2"));
}

TEST_CASE("supervisor: a signal reaches each rank once, and all end before any is given up") {
  Supervised job(3, kSaves);
  job.await("ready", 3);
  job.ask(SIGTERM);
  job.ask(SIGTERM);
  CHECK(job.outcome() == "143 ");
  for (int rank = 0; rank < 3; ++rank) CHECK(contents_of(job.notes / text("signals", rank)) == "TERM\n");
}

TEST_CASE("supervisor: ranks take the time they have to save") {
  Supervised job(2,
                 "trap 'sleep 0.$RANK; sleep $RANK; touch $0/saved$RANK; exit 130' INT; touch $0/ready$RANK; "
                 "while :; do sleep 0.01; done");
  job.await("ready", 2);
  job.ask(SIGINT);
  CHECK(job.outcome() == "130 ");
  CHECK(std::filesystem::exists(job.notes / "saved1"));
}

TEST_CASE("supervisor: who does not end in time after a signal is killed, and that is a failure") {
  Supervised job(2, "trap '[ $RANK = 0 ] && exit 143' TERM; touch $0/ready$RANK; while :; do sleep 0.01; done",
                 std::chrono::milliseconds(300));
  job.await("ready", 2);
  job.ask(SIGTERM);
  CHECK(job.outcome() == "1 rank 1 of 2 did not end in time and was killed");
}

TEST_CASE("supervisor: a second interrupt ends the job at once") {
  Supervised job(2, "trap '' INT; " + kSleep);
  job.await("ready", 2);
  job.ask(SIGINT);
  job.ask(SIGINT);
  CHECK(job.outcome() == "130 ");
}

TEST_CASE("supervisor: the request to save passes through and ends nothing") {
  Supervised job(2,
                 "trap 'touch $0/saved$RANK' USR1; touch $0/ready$RANK; "
                 "while ! [ -e $0/saved$RANK ]; do sleep 0.01; done");
  job.await("ready", 2);
  job.ask(SIGUSR1);
  CHECK(job.outcome() == "0 ");
}

TEST_CASE("supervisor: whoever would send signals being gone ends the job") {
  Supervised job(2, "trap '' TERM; " + kSleep);
  job.await("ready", 2);
  job.asks.close();
  CHECK(job.outcome() == "1 the launcher has gone");
}

TEST_CASE("supervisor: what a rank left running is ended with the job") {
  Supervised job(2,
                 "setsid sh -c 'trap \"\" TERM; echo $$ > $0/left$RANK.part; mv $0/left$RANK.part $0/left$RANK; "
                 "while :; do sleep 1; done' $0 & while ! [ -e $0/left$RANK ]; do sleep 0.01; done");
  CHECK(job.outcome() == "0 ");
  for (int rank = 0; rank < 2; ++rank) CHECK(has_ended(pid_t(std::stol(contents_of(job.notes / text("left", rank))))));
}

TEST_CASE("supervisor: a program that does not exist is a failure of each rank") {
  Supervised job(2, "exec /nonexistent/program 2> /dev/null");
  CHECK(contains(job.outcome(), "ended with exit code 127"));
}
