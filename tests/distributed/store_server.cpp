#include "distributed/store_server.h"

#include <poll.h>
#include <sys/socket.h>

#include "tests/distributed/ranks_of_store.h"
#include "tests/support/message.h"

using namespace agon;
using namespace agon::testing;
using agon::test::check_contains;
using agon::test::contains;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

Descriptor connected(int port) {
  return connect_to(resolve("127.0.0.1", port, "HOST"), "stranger", Clock::now() + seconds(10));
}

void say(const Descriptor& to, const std::string& bytes) {
  CHECK(send(to.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) == ssize_t(bytes.size()));
}

/// Waits until the other side has closed; whether it did within the time.
bool is_closed(const Descriptor& socket, milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  char bytes[4096];
  while (Clock::now() < deadline) {
    pollfd wanted{socket.get(), POLLIN, 0};
    if (poll(&wanted, 1, milliseconds_until(deadline)) > 0 && recv(socket.get(), bytes, sizeof bytes, 0) <= 0)
      return true;
  }
  return false;
}

/// A store of two ranks to which `disturb` happens before rank 1 comes.
void disturbed(Server& server, const std::function<void(int port)>& disturb) {
  const int port = server.store.port();
  const auto thrown = run_all({[&] {
                                 server.store.await_ranks();
                                 server.store.publish("a", "b");
                                 server.store.barrier();
                               },
                               [&] {
                                 disturb(port);
                                 const auto store = join_store(store_options(1, 2, port, seconds(20)));
                                 CHECK(store->get("a") == "b");
                                 store->barrier();
                               }});
  for (const std::string& message : thrown) CHECK(message == "");
}

std::string greeting(int rank) { return encode({Say::hello, "secret", hello_value(rank, 2)}); }

}  // namespace

TEST_CASE("store server: garbage is turned away at once with a note, and disturbs nobody") {
  std::string other_version = greeting(1), huge = greeting(1), kind = greeting(1);
  other_version[4] = 9;
  for (int byte = 12; byte < 20; ++byte) huge[byte] = '\xff';
  kind[8] = 77;
  const std::string random("\x8f\x00\xd2\x17\xfe\xed", 6);
  const std::vector<std::pair<std::string, const char*>> garbage = {
      {random, "begins with '"},
      {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "begins with 'GET / HTTP/1.1"},
      {other_version, "speaks version 9"},
      {huge, "announced 8589934590 bytes"},
      {kind, "unknown kind 77"},
      {encode({Say::get, "a", ""}), "did not begin with a greeting"},
      {encode({Say::hello, "secret", "short"}), "greeting has 5 bytes"},
      {encode({Say::hello, "secret", hello_value(7, 2)}), "a second rank 7 of 2"},
      {encode({Say::hello, "secret", hello_value(0, 2)}), "a second rank 0 of 2"},
      {encode({Say::hello, "wrong", hello_value(1, 2)}), "the token is not rank 0's"}};
  Server server(2);
  disturbed(server, [&](int port) {
    for (const auto& [bytes, note] : garbage) {
      const Descriptor stranger = connected(port);
      say(stranger, bytes);
      CHECK(is_closed(stranger, seconds(4)));
    }
  });
  REQUIRE(server.notes.size() == garbage.size());
  for (size_t i = 0; i < garbage.size(); ++i)
    check_contains(server.notes[i], {"rendezvous at 127.0.0.1:", "turned away 127.0.0.1:", garbage[i].second});
}

TEST_CASE("store server: half a greeting and a silent peer disturb nobody, and are gone when all have come") {
  Server server(2);
  Descriptor half, silent, hung_up;
  disturbed(server, [&](int port) {
    silent = connected(port);
    half = connected(port);
    say(half, greeting(1).substr(0, 25));
    hung_up = connected(port);
    say(hung_up, "ago");
    hung_up.close();
  });
  CHECK(is_closed(silent, seconds(4)));
  CHECK(is_closed(half, seconds(4)));
  CHECK(server.notes.size() == 3);
  check_contains(server.all_notes(), {"closed the connection", "the job is complete"});
}

TEST_CASE("store server: who sends its greeting too slowly is turned away after five seconds") {
  Server server(2);
  disturbed(server, [&](int port) {
    const Descriptor slow = connected(port);
    const std::string bytes = greeting(1);
    const auto start = Clock::now();
    bool open = true;
    for (size_t i = 0; open && i < bytes.size(); ++i) {  // one byte each 300 ms would take 11 s
      send(slow.get(), &bytes[i], 1, MSG_NOSIGNAL);
      open = !is_closed(slow, milliseconds(300));
    }
    CHECK(!open);
    CHECK(Clock::now() - start >= milliseconds(4500));
  });
  check_contains(server.all_notes(), {"did not greet within 5 s"});
}

TEST_CASE("store server: a crowd of silent peers leaves room for those who greet") {
  Server server(2);
  std::vector<Descriptor> crowd;
  disturbed(server, [&](int port) {
    for (int i = 0; i < 100; ++i) crowd.push_back(connected(port));
    CHECK(is_closed(crowd.front(), seconds(4)));
  });
  check_contains(server.all_notes(), {"too many others wait", "not all are listed"});
  CHECK(server.notes.size() == 21);
}

TEST_CASE("store server: a rank that sends nonsense after its greeting is named to all") {
  Server server(3);
  const int port = server.store.port();
  std::atomic<bool> joined = false;  // before the server has a reason to end
  const auto thrown = run_all({[&] {
                                 server.store.await_ranks();
                                 server.store.barrier();
                               },
                               [&] {
                                 const auto store = join_store(store_options(2, 3, port, seconds(20)));
                                 joined = true;
                                 store->barrier();
                               },
                               [&] {
                                 const Descriptor rank = connected(port);
                                 say(rank, encode({Say::hello, "secret", hello_value(1, 3)}));
                                 for (int i = 0; i < 1000 && !joined; ++i)
                                   std::this_thread::sleep_for(milliseconds(10));
                                 say(rank, "nonsense");
                                 is_closed(rank, seconds(4));
                               }});
  for (const int rank : {0, 1})
    check_contains(thrown[rank], {"rank 1 (127.0.0.1:", "is lost: it begins with 'nonsense'"});
}

TEST_CASE("store server: answers of 64 KiB to one who does not read keep nobody waiting") {
  Server server(3);
  const int port = server.store.port();
  const std::string large(65000, 'x');
  const auto thrown = run_all({[&] {
                                 server.store.await_ranks();
                                 server.store.publish("large", large);
                                 CHECK(server.store.get("end") == "1");
                               },
                               [&] {
                                 const auto store = join_store(store_options(1, 3, port, seconds(20)));
                                 CHECK(store->get("asked") == "1");
                                 CHECK(store->get("large") == large);
                                 store->publish("end", "1");
                               },
                               [&] {
                                 const Descriptor rank = connected(port);
                                 std::string asks = encode({Say::hello, "secret", hello_value(2, 3)});
                                 for (int i = 0; i < 300; ++i) asks += encode({Say::get, "large", ""});
                                 say(rank, asks + encode({Say::publish, "asked", "1"}));
                                 pollfd nothing{-1, 0, 0};
                                 poll(&nothing, 1, 500);  // reading nothing
                               }});
  CHECK(thrown[0] == "");
}
