#include "distributed/socket.h"

#include <doctest/doctest.h>
#include <poll.h>
#include <unistd.h>

#include <functional>

#include "core/error.h"
#include "tests/support/message.h"

using namespace agon;
using agon::test::check_contains;
using agon::test::contains;
using agon::test::user_error;

namespace {

std::string failure(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    CHECK(e.exit_code() == 1);
    return e.what();
  }
  FAIL_CHECK("expected an Error");
  return {};
}

Clock::time_point in(int milliseconds) { return Clock::now() + std::chrono::milliseconds(milliseconds); }

}  // namespace

TEST_CASE("socket: a descriptor is closed once, at the end") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  Descriptor reading(ends[0]);
  {
    Descriptor writing(ends[1]), moved(std::move(writing));
    CHECK(!writing);
    CHECK(moved.get() == ends[1]);
    CHECK(write(moved.get(), "x", 1) == 1);
  }
  char byte;
  CHECK(read(reading.get(), &byte, 1) == 1);
  CHECK(read(reading.get(), &byte, 1) == 0);
}

TEST_CASE("socket: addresses of both families have names") {
  CHECK(resolve("127.0.0.1", 80, "HOST").front().name() == "127.0.0.1:80");
  CHECK(resolve("::1", 80, "HOST").front().name() == "[::1]:80");
  CHECK(resolve("::1", 80, "HOST").front().port() == 80);
  CHECK(host_and_port("fe80::1", 1) == "[fe80::1]:1");
  CHECK(host_and_port("red", 1) == "red:1");
  check_contains(user_error([] { resolve("no.such.host.invalid", 80, "MASTER_ADDR"); }),
                 {"MASTER_ADDR='no.such.host.invalid'", "expected"});
}

TEST_CASE("socket: connects to who listens, and to who begins to listen later") {
  for (const char* host : {"127.0.0.1", "localhost"}) {
    std::vector<Address> addresses = resolve(host, 0, "HOST");
    const std::vector<Descriptor> listening = listen_on(addresses, host);
    REQUIRE(!listening.empty());
    CHECK(addresses.front().port() > 0);
    CHECK(bool(connect_to(resolve(host, addresses.front().port(), "HOST"), host, in(5000))));
  }
}

TEST_CASE("socket: nobody listening is an error with the name and the time waited") {
  std::vector<Address> addresses = resolve("127.0.0.1", 0, "HOST");
  listen_on(addresses, "x");  // and closes at once: a free port
  const std::string message = failure([&] { connect_to(addresses, "the store", in(200)); });
  check_contains(message, {"the store: nobody answered in 0.", "refused"});
}

TEST_CASE("socket: a taken port is an error with its name") {
  std::vector<Address> addresses = resolve("127.0.0.1", 0, "HOST");
  const std::vector<Descriptor> listening = listen_on(addresses, "x");
  check_contains(failure([&] { listen_on(addresses, addresses.front().name()); }),
                 {addresses.front().name().c_str(), "taken", "MASTER_PORT"});
}

TEST_CASE("socket: an address of another machine cannot be listened on") {
  std::vector<Address> addresses = resolve("192.0.2.1", 0, "HOST");
  check_contains(user_error([&] { listen_on(addresses, "192.0.2.1:0"); }), {"192.0.2.1:0", "rank 0", "MASTER_ADDR"});
}

TEST_CASE("socket: times for poll") {
  CHECK(milliseconds_until(Clock::now() - std::chrono::seconds(1)) == 0);
  CHECK(milliseconds_until(Clock::now() + std::chrono::hours(10000)) == 1 << 30);
  CHECK(milliseconds_until(Clock::now() + std::chrono::microseconds(900000)) > 0);
  CHECK(seconds_since(Clock::now()) == "0.0");
}
