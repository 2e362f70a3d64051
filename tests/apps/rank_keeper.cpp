#include "apps/rank_keeper.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <csignal>

#include "apps/rank_channel.h"
#include "tests/apps/forked.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// A keeper of rank 3, whose program is a script, and the supervisor's side of it.
struct Kept {
  TemporaryFolder folder;
  Descriptor listening = listen_for_keepers(folder / "ranks"), keeper;
  pid_t process = 0;

  explicit Kept(const std::string& script) {
    process = start_forked([&] {
      setpgid(0, 0);
      return keep_rank(folder / "ranks", 3, {"/bin/sh", "-c", script, folder.path()});
    });
    while (!keeper) keeper = take_keeper(listening);
  }
  RankMessage hear() const {
    const auto message = receive_message(keeper);
    REQUIRE(message.has_value());
    CHECK(message->rank == 3);
    return *message;
  }
  void await(const std::string& file) const {
    while (!std::filesystem::exists(folder / file)) usleep(1000);
  }
  void leave() const { send_message(keeper, {RankMessage::leave, 3, 0}); }
};

}  // namespace

TEST_CASE("rank keeper: says that the rank began and how it ended, and ends like it when told") {
  for (const auto& [script, status, code] :
       {std::tuple("exit 0", 0, 0), std::tuple("exit 3", 0x300, 3), std::tuple("kill -9 $$", SIGKILL, 128 + SIGKILL),
        std::tuple("kill -SEGV $$", SIGSEGV, 128 + SIGSEGV)}) {
    const Kept kept(script);
    CHECK(kept.hear().kind == RankMessage::began);
    const RankMessage end = kept.hear();
    CHECK(end.kind == RankMessage::ended);
    CHECK((end.value & 0xff7f) == status);  // whatever it says of a core dump
    CHECK(waitpid(kept.process, nullptr, WNOHANG) == 0);
    kept.leave();
    CHECK(wait_for(kept.process) == code);
  }
}

TEST_CASE("rank keeper: passes signals on, of which the rank has its own handling") {
  const Kept kept("trap 'touch $0/got; exit 143' TERM; touch $0/ready; while :; do sleep 0.01; done");
  kept.hear();
  kept.await("ready");
  send_message(kept.keeper, {RankMessage::signal, 3, SIGTERM});
  CHECK(kept.hear().value == 143 << 8);
  kept.await("got");
  kept.leave();
  CHECK(wait_for(kept.process) == 143);
}

TEST_CASE("rank keeper: a signal to the group reaches the rank and leaves its keeper") {
  const Kept kept("touch $0/ready; exec sleep 100");
  kept.hear();
  kept.await("ready");
  kill(-kept.process, SIGTERM);
  CHECK(kept.hear().value == SIGTERM);
  kept.leave();
  CHECK(wait_for(kept.process) == 128 + SIGTERM);
}

TEST_CASE("rank keeper: a rank that is stopped can be killed") {
  const Kept kept("touch $0/ready; kill -STOP $$; exit 0");
  kept.hear();
  kept.await("ready");
  usleep(20000);
  send_message(kept.keeper, {RankMessage::signal, 3, SIGKILL});
  CHECK(kept.hear().value == SIGKILL);
  kept.leave();
  CHECK(wait_for(kept.process) == 128 + SIGKILL);
}

TEST_CASE("rank keeper: a supervisor that is gone ends the rank") {
  Kept kept("echo $$ > $0/pid.part; mv $0/pid.part $0/pid; trap '' TERM; while :; do sleep 0.01; done");
  kept.hear();
  kept.await("pid");
  const pid_t rank = pid_t(std::stol(contents_of(kept.folder / "pid")));
  kept.keeper.close();
  CHECK(wait_for(kept.process) == 128 + SIGKILL);
  CHECK(has_ended(rank));
}

TEST_CASE("rank keeper: a keeper that is killed takes the rank with it") {
  const Kept kept("echo $$ > $0/pid.part; mv $0/pid.part $0/pid; exec sleep 100");
  kept.hear();
  kept.await("pid");
  const pid_t rank = pid_t(std::stol(contents_of(kept.folder / "pid")));
  kill(kept.process, SIGKILL);
  CHECK(wait_for(kept.process) == 128 + SIGKILL);
  while (!has_ended(rank)) usleep(1000);
}

TEST_CASE("rank keeper: a program that cannot be started is a rank that ends with 127") {
  const TemporaryFolder folder;
  const Descriptor listening = listen_for_keepers(folder / "ranks");
  const pid_t process = start_forked([&] { return keep_rank(folder / "ranks", 0, {"/nonexistent/program"}); });
  Descriptor keeper;
  while (!keeper) keeper = take_keeper(listening);
  CHECK(receive_message(keeper)->kind == RankMessage::began);
  CHECK(receive_message(keeper)->value == 127 << 8);
  keeper.close();
  CHECK(wait_for(process) == 127);
}
