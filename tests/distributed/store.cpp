#include "distributed/store.h"

#include "tests/distributed/ranks_of_store.h"
#include "tests/support/message.h"

using namespace agon;
using namespace agon::testing;
using agon::test::check_contains;
using agon::test::contains;
using agon::test::user_error;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

void none_threw(const std::vector<std::string>& thrown) {
  for (const std::string& message : thrown) CHECK(message == "");
}

}  // namespace

TEST_CASE("store: what one rank publishes all ranks get, bytes and all") {
  const std::string id("\0\x01 id\xff", 6), large(60000, 'x');
  for (int size : {1, 2, 5}) {
    Server server(size);
    std::vector<std::function<void()>> ranks;
    for (int rank = 0; rank < size; ++rank)
      ranks.push_back([&, rank] {
        std::unique_ptr<Store> joined;
        if (rank == 0)
          server.store.await_ranks();
        else
          joined = join_store(store_options(rank, size, server.store.port(), seconds(20)));
        Store& store = joined ? *joined : server.store;
        if (rank == 0) store.publish("id", id);
        store.publish(text("of ", rank), text(rank, large));
        CHECK(store.get("id") == id);
        for (int other = 0; other < size; ++other) CHECK(store.get(text("of ", other)) == text(other, large));
        store.barrier();
        store.barrier();
      });
    none_threw(run_all(ranks));
    CHECK(server.notes.empty());
  }
}

TEST_CASE("store: ranks may come before rank 0 listens, by names of both families") {
  for (const char* host : {"localhost", "127.0.0.1", "::1"}) {
    std::vector<Address> free = resolve(host, 0, "HOST");
    try {
      listen_on(free, "free");
    } catch (const UserError&) {
      MESSAGE("this machine has no ", host);
      continue;
    }
    const int port = free.front().port();
    std::vector<std::function<void()>> ranks;
    for (int rank = 0; rank < 3; ++rank)
      ranks.push_back([=] {
        if (rank == 0) std::this_thread::sleep_for(milliseconds(150));
        StoreOptions options = store_options(rank, 3, port, seconds(20));
        options.host = host;
        const auto store = join_store(options);
        if (rank == 2) store->publish("a", "b");
        CHECK(store->get("a") == "b");
        store->barrier();
      });
    none_threw(run_all(ranks));
  }
}

TEST_CASE("store: a missing rank ends all with its number, the place and the time") {
  Server server(4, milliseconds(400));
  const int port = server.store.port();
  const auto thrown =
      run_all({[&] { server.store.await_ranks(); }, [&] { join_store(store_options(2, 4, port, seconds(20))); }});
  for (const std::string& message : thrown)
    check_contains(message, {text("rendezvous at 127.0.0.1:", port).c_str(), "rank 1, 3 of 4 did not come in 0.4 s"});
}

TEST_CASE("store: without rank 0 the others end with the place and the time") {
  Server free(1);
  const int port = free.store.port();
  free.store.await_ranks();  // stops listening
  const auto thrown = run_all({[&] { join_store(store_options(1, 2, port, milliseconds(300))); }});
  check_contains(thrown[0], {text("rendezvous at 127.0.0.1:", port, ": nobody answered in 0.").c_str()});
}

TEST_CASE("store: what nobody publishes and a barrier that a rank does not reach end all ranks") {
  for (const bool at_barrier : {false, true}) {
    Server server(3, milliseconds(400));
    const auto other = [&](int rank) {
      const auto store = join_store(store_options(rank, 3, server.store.port(), seconds(20)));
      if (rank == 2)
        store->get("something");  // that never comes
      else
        store->barrier();
    };
    const auto thrown = run_all({[&] {
                                   server.store.await_ranks();
                                   at_barrier ? server.store.barrier() : void(server.store.get("other"));
                                 },
                                 [&] { other(1); }, [&] { other(2); }});
    for (const std::string& message : thrown)
      check_contains(message, {at_barrier ? "rank 2 of 3 did not reach the barrier in 0.4 s"
                                          : "nobody has published 'other' in 0.4 s"});
  }
}

TEST_CASE("store: a key is published once") {
  Server server(2);
  const auto thrown = run_all({[&] {
                                 server.store.await_ranks();
                                 server.store.publish("a", "1");
                                 server.store.barrier();
                               },
                               [&] {
                                 const auto store = join_store(store_options(1, 2, server.store.port(), seconds(20)));
                                 CHECK(store->get("a") == "1");
                                 check_contains(user_error([&] { store->publish("a", "2"); }), {"'a'", "before"});
                                 CHECK(store->get("a") == "1");
                                 store->barrier();
                               }});
  none_threw(thrown);
}

TEST_CASE("store: another token, size or rank is refused there, and the others go on") {
  Server server(2);
  const auto refused = [&](const StoreOptions& options) { return user_error([&] { join_store(options); }); };
  std::string token, size, rank;
  const auto thrown = run_all({[&] {
                                 server.store.await_ranks();
                                 server.store.barrier();
                               },
                               [&] {
                                 StoreOptions options = store_options(1, 2, server.store.port(), seconds(20));
                                 options.token = "guess";
                                 token = refused(options);
                                 size = refused(store_options(2, 3, server.store.port(), seconds(20)));
                                 join_store(store_options(1, 2, server.store.port(), seconds(20)))->barrier();
                               }});
  none_threw(thrown);
  check_contains(token, {"rendezvous at 127.0.0.1:", "the token is not rank 0's", "AGON_TOKEN"});
  check_contains(size, {"rank 2 expects 3 ranks, rank 0 2"});
  CHECK(server.notes.size() == 2);
  check_contains(server.all_notes(), {"turned away 127.0.0.1:", "the token is not", "expects 3 ranks"});
  CHECK(!contains(server.all_notes() + token, "secret"));
  CHECK(!contains(server.all_notes() + token, "guess"));
}

TEST_CASE("store: a rank that comes twice is refused, and the first stays") {
  Server server(3);
  const int port = server.store.port();
  std::string twice;
  const auto thrown = run_all({[&] {
                                 server.store.await_ranks();
                                 server.store.barrier();
                               },
                               [&] { join_store(store_options(1, 3, port, seconds(20)))->barrier(); },
                               [&] {
                                 while (twice.empty()) {
                                   StoreOptions again = store_options(1, 3, port, milliseconds(2000));
                                   std::this_thread::sleep_for(milliseconds(200));
                                   twice = user_error([&] { join_store(again); });
                                 }
                                 join_store(store_options(2, 3, port, seconds(20)))->barrier();
                               }});
  none_threw(thrown);
  check_contains(twice, {"there are two of rank 1 (127.0.0.1:"});
}

TEST_CASE("store: a rank that is lost ends the others, whatever they wait for") {
  Server server(3);
  const int port = server.store.port();
  const auto thrown = run_all({[&] {
                                 server.store.await_ranks();
                                 server.store.barrier();
                               },
                               [&] { join_store(store_options(1, 3, port, seconds(20)))->get("id"); },
                               [&] { join_store(store_options(2, 3, port, seconds(20))); }});
  for (const int rank : {0, 1})
    check_contains(thrown[rank], {"rank 2 (127.0.0.1:", "is lost: it has closed the connection"});
  CHECK(thrown[2] == "");
}

TEST_CASE("store: rank 0 that is lost ends the others") {
  std::string message;
  auto server = std::make_unique<Server>(2);
  const int port = server->store.port();
  const auto thrown = run_all({[&] {
                                 server->store.await_ranks();
                                 server.reset();
                               },
                               [&] { join_store(store_options(1, 2, port, seconds(20)))->barrier(); }});
  check_contains(thrown[1], {"rendezvous at 127.0.0.1:", "rank 0 is lost"});
}

TEST_CASE("store: a token is needed, and too long ones and values are refused") {
  StoreOptions options = store_options(0, 1, 0, seconds(1));
  options.token = "";
  check_contains(user_error([&] { join_store(options); }), {"AGON_TOKEN is not set"});
  options.token = std::string(40000, 'x');
  check_contains(user_error([&] { join_store(options); }), {"AGON_TOKEN has 40000 bytes", "32768"});
  Server server(1);
  server.store.await_ranks();
  check_contains(user_error([&] { server.store.publish("k", std::string(65536, 'x')); }), {"65537", "65536"});
}
