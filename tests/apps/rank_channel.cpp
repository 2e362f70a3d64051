#include "apps/rank_channel.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/error.h"
#include "tests/apps/forked.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("rank channel: a keeper gets the supervisor's outputs, messages go both ways until one side has gone") {
  const TemporaryFolder folder;
  const std::string path = folder / "ranks";
  const Descriptor listening = listen_for_keepers(path);
  CHECK(!take_keeper(listening));  // nobody yet, without waiting
  const pid_t keeper = start_forked([&] {
    const ToSupervisor to = come_to_supervisor(path);
    if (write(to.output.get(), "out", 3) != 3 || write(to.error.get(), "error", 5) != 5) return 1;
    if (!send_message(to.socket, {RankMessage::ended, 7, 0x300})) return 2;
    const auto message = receive_message(to.socket);
    return message && message->kind == RankMessage::signal && message->rank == 7 && message->value == 15 ? 0 : 3;
  });
  const pid_t supervisor = start_forked([&] {
    for (const auto& [stream, name] : {std::pair(1, "output"), std::pair(2, "errors")})
      dup2(open((folder / name).c_str(), O_WRONLY | O_CREAT, 0600), stream);
    Descriptor socket;
    while (!socket) socket = take_keeper(listening);
    const auto message = receive_message(socket);
    if (!message || message->kind != RankMessage::ended || message->rank != 7 || message->value != 0x300) return 1;
    if (!send_message(socket, {RankMessage::signal, 7, 15})) return 2;
    return receive_message(socket) ? 3 : 0;  // the keeper has gone
  });
  CHECK(wait_for(keeper) == 0);
  CHECK(wait_for(supervisor) == 0);
  CHECK(contents_of(folder / "output") == "out");
  CHECK(contents_of(folder / "errors") == "error");
}

TEST_CASE("rank channel: nobody there, and paths too long for a socket, are errors with the path") {
  const TemporaryFolder folder;
  CHECK(contains(error([&] { come_to_supervisor(folder / "nobody"); }), folder / "nobody"));
  const std::string path = folder / std::string(120, 'x');
  CHECK(contains(error([&] { listen_for_keepers(path); }), path + ": too long"));
}
