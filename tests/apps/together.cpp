#include "apps/together.h"

#include <doctest/doctest.h>

#include "apps/file_system.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("together: every rank gets what each returned") {
  on_all_kinds_of_ranks([](Communicator& comm) {
    const auto all = gather(comm, [&] { return std::string(size_t(comm.rank()) * 3, char('a' + comm.rank())); });
    CHECK(int(all.size()) == comm.size());
    for (int r = 0; r < comm.size(); ++r) CHECK(all[size_t(r)] == std::string(size_t(r) * 3, char('a' + r)));
    int here = 0;
    together(comm, [&] { here = 1; });
    CHECK(here == 1);
  });
}

TEST_CASE("together: one rank's failure is everybody's, of its kind") {
  const auto failing = [](int n, const std::function<void(int rank)>& body, auto&& see) {
    run_on_threads(n, [&](Communicator& comm) {
      bool ended = false, threw = false;
      try {
        together(comm, [&] {
          ended = true;
          body(comm.rank());
        });
      } catch (const Error& e) {
        threw = true;
        see(e, comm.host(2));
      }
      CHECK((ended && threw));
      comm.barrier();  // they can go on together
    });
  };
  failing(
      4,
      [](int rank) {
        if (rank == 2) throw UserError("disk: full");
      },
      [](const Error& e, const std::string& host) {
        CHECK(e.what() == "rank 2 on " + host + ": disk: full");
        CHECK(dynamic_cast<const UserError*>(&e));
        CHECK_FALSE(dynamic_cast<const NoPermission*>(&e));
      });
  failing(
      3, [](int rank) { rank == 0 ? throw UserError("a user's") : throw NoPermission("not allowed"); },
      [](const Error& e, const std::string& host) {
        CHECK(e.what() == "rank 1 on " + host + ": not allowed");
        CHECK(dynamic_cast<const NoPermission*>(&e));
      });
  failing(
      3,
      [](int rank) {
        if (rank == 1) throw Error("nine", 9);
        if (rank == 2) throw std::runtime_error("other");
        throw UserError("a user's");
      },
      [](const Error& e, const std::string& host) {
        CHECK(e.what() == "rank 1 on " + host + ": nine");
        CHECK(e.exit_code() == 9);
      });
}

TEST_CASE("together: one rank on its own throws what it throws") {
  CHECK_THROWS_WITH_AS(together(*make_self_communicator(), [] { throw std::runtime_error("x"); }), "x",
                       std::runtime_error);
}

TEST_CASE("together: a rank that is gone ends the others") {
  struct Gone {};
  int ended = 0;
  CHECK_THROWS_AS(run_on_threads(3,
                                 [&](Communicator& comm) {
                                   try {
                                     together(comm, [&] {
                                       if (comm.rank() == 1) throw Gone{};
                                     });
                                   } catch (const Error&) {
                                     if (comm.rank() == 0) ++ended;
                                     throw;
                                   }
                                 }),
                  Gone);
  CHECK(ended == 1);
}
