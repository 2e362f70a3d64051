#include "distributed/together.h"

#include <doctest/doctest.h>

#include "core/error.h"
#include "distributed/host.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("together: texts of all ranks, empty ones among them, and that of the first") {
  on_all_kinds_of_ranks([](Communicator& comm) {
    const auto mine = [](int rank) {
      return rank == 1 ? "" : std::string(size_t(rank) * 3, 'x') + std::to_string(rank);
    };
    const auto texts = all_texts(comm, mine(comm.rank()));
    REQUIRE(int(texts.size()) == comm.size());
    for (int r = 0; r < comm.size(); ++r) CHECK(texts[size_t(r)] == mine(r));
    CHECK(text_of_first(comm, "from " + std::to_string(comm.rank())) == "from 0");
  });
}

TEST_CASE("together: every rank gets what each returned") {
  on_all_kinds_of_ranks([](Communicator& comm) {
    const auto all = gather(comm, [&] { return std::string(size_t(comm.rank()) * 3, char('a' + comm.rank())); });
    CHECK(int(all.size()) == comm.size());
    for (int r = 0; r < comm.size(); ++r) CHECK(all[size_t(r)] == std::string(size_t(r) * 3, char('a' + r)));
    int runs = 0;
    together(comm, [&] { ++runs; });
    first_alone(comm, [&] { ++runs; });
    CHECK(runs == (comm.rank() == 0 ? 2 : 1));
  });
}

TEST_CASE("together: what fails on some ranks fails on all, of its kind, with a message that names them") {
  run_on_threads(3, [](Communicator& comm) {
    const auto outcome = [&](const std::function<void()>& f) {
      bool ended = false;
      try {
        together(comm, [&] {
          ended = true;
          f();
        });
      } catch (const Error& e) {
        CHECK(ended);
        CHECK(dynamic_cast<const Agreed*>(&e));
        const char* kind = dynamic_cast<const NoPermission*>(&e) ? "permission "
                           : dynamic_cast<const UserError*>(&e)  ? "user "
                                                                 : "";
        comm.barrier();  // all are at the same place
        return text(kind, e.exit_code(), ' ', e.what());
      }
      return std::string();
    };
    const int rank = comm.rank();
    const std::string host = this_host();
    CHECK(outcome([] {}).empty());
    CHECK(outcome([&] { require(rank != 1, "no such file"); }) == "user 2 rank 1 on " + host + ": no such file");
    CHECK(outcome([&] { require(rank == 1, "no such file"); }) == "user 2 ranks 0, 2 on " + host + ": no such file");
    CHECK(outcome([] { throw UserError("no such key"); }) == "user 2 no such key");
    CHECK(outcome([&] { rank == 0 ? throw UserError("a user's") : throw NoPermission("not allowed"); }) ==
          "permission 2 rank 0 on " + host + ": a user's; ranks 1, 2 on " + host + ": not allowed");
    CHECK(outcome([&] {
            if (rank == 0) throw UserError("key");
            if (rank == 1) throw Error("nine", 9);
            throw std::runtime_error("other");
          }) == "9 rank 0 on " + host + ": key; rank 1 on " + host + ": nine; rank 2 on " + host + ": other");
  });
}

TEST_CASE("together: a rank that is gone ends the others") {
  struct Gone {};
  int ended = 0;
  const auto body = [&](Communicator& comm) {
    try {
      together(comm, [&] {
        if (comm.rank() == 1) throw Gone{};
      });
    } catch (const Error&) {
      if (comm.rank() == 0) ++ended;
      throw;
    }
  };
  CHECK_THROWS_AS(run_on_threads(3, body), Gone);
  CHECK(ended == 1);
}

TEST_CASE("together: on one rank what is thrown passes through") {
  const auto self = make_self_communicator();
  CHECK_THROWS_AS(together(*self, [] { throw std::runtime_error("disk"); }), std::runtime_error);
}

TEST_CASE("together: texts that have to be the same, each difference with what every rank has") {
  run_on_threads(3, [](Communicator& comm) {
    const std::string host = " on " + this_host();
    std::map<std::string, std::string> texts{{"a", "1"}, {"b", "two words"}, {"c", ""}};
    require_same(comm, texts);
    if (comm.rank() == 1) texts["a"] = "2", texts["d"] = "new";
    if (comm.rank() == 2) texts.erase("b");
    const std::string found = message_of([&] { require_same(comm, texts); });
    CHECK(found == "the ranks disagree:\n  a: 1 on ranks 0, 2" + host + ", 2 on rank 1" + host +
                       "\n  b: (none) on rank 2" + host + ", two words on ranks 0, 1" + host +
                       "\n  d: (none) on ranks 0, 2" + host + ", new on rank 1" + host);
    CHECK_THROWS_AS(require_same(comm, texts), UserError);
  });
}
