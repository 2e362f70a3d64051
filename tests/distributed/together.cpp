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

TEST_CASE("together: what fails on some ranks fails on all, with a message that names them") {
  run_on_threads(3, [](Communicator& comm) {
    const auto outcome = [&](const std::function<void()>& f) {
      try {
        together(comm, "reading", f);
      } catch (const Error& e) {
        CHECK(dynamic_cast<const Agreed*>(&e));
        return std::to_string(e.exit_code()) + ' ' + e.what();
      }
      return std::string();
    };
    const std::string host = this_host();
    CHECK(outcome([] {}).empty());
    CHECK(outcome([&] { require(comm.rank() != 1, "no such file"); }) ==
          "2 reading failed on rank 1 on " + host + ": no such file");
    CHECK(outcome([&] { require(comm.rank() == 1, "no such file"); }) ==
          "2 reading failed on ranks 0, 2 on " + host + ": no such file");
    CHECK(outcome([] { throw UserError("no such key"); }) == "2 no such key");
    CHECK(outcome([&] {
            if (comm.rank() == 0) throw std::runtime_error("disk");
            if (comm.rank() == 2) throw UserError("key");
          }) == "1 reading failed on rank 0 on " + host + ": disk\nreading failed on rank 2 on " + host + ": key");
    int runs = 0;
    first_alone(comm, "writing", [&] { ++runs; });
    CHECK(runs == (comm.rank() == 0));
    comm.barrier();  // all are at the same place
  });
}

TEST_CASE("together: on one rank what is thrown passes through") {
  const auto self = make_self_communicator();
  CHECK_THROWS_AS(together(*self, "reading", [] { throw std::runtime_error("disk"); }), std::runtime_error);
}

TEST_CASE("together: texts that have to be the same, each difference with what every rank has") {
  run_on_threads(3, [](Communicator& comm) {
    const std::string host = " on " + this_host();
    std::map<std::string, std::string> texts{{"a", "1"}, {"b", "two words"}, {"c", ""}};
    require_same(comm, "the ranks", texts);
    if (comm.rank() == 1) texts["a"] = "2", texts["d"] = "new";
    if (comm.rank() == 2) texts.erase("b");
    const std::string found = message_of([&] { require_same(comm, "the ranks", texts); });
    CHECK(found == "the ranks disagree:\n  a: 1 on ranks 0, 2" + host + ", 2 on rank 1" + host +
                       "\n  b: (none) on rank 2" + host + ", two words on ranks 0, 1" + host +
                       "\n  d: (none) on ranks 0, 2" + host + ", new on rank 1" + host);
    CHECK_THROWS_AS(require_same(comm, "the ranks", texts), UserError);
  });
}
