#include "apps/run.h"

#include <doctest/doctest.h>

#include "distributed/host.h"
#include "tests/apps/run_folder.h"
#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// What the ranks throw where each begins a run with its own arguments; all must throw the same.
std::string refused(const std::vector<TrainArguments>& of_rank) {
  std::vector<std::string> thrown(of_rank.size());
  run_on_threads(int(of_rank.size()), [&](Communicator& all) {
    try {
      const agon::Run run(of_rank[size_t(all.rank())], all);
    } catch (const UserError& e) { thrown[size_t(all.rank())] = e.what(); }
  });
  for (const std::string& message : thrown) CHECK(message == thrown[0]);
  return thrown[0];
}

}  // namespace

TEST_CASE("run: ranks that disagree are refused with each key, its values and whose they are") {
  const Folder folder;
  const std::string host = " on " + this_host();
  CHECK(refused({folder.run("run"), folder.run("run", {"model.width=24", "optimizer.rate=0.01"}), folder.run("run"),
                 folder.run("run", {"optimizer.rate=0.01"})}) ==
        "the ranks disagree:\n  model.width: 16 on ranks 0, 2, 3" + host + ", 24 on rank 1" + host +
            "\n  optimizer.rate: 0.001 on ranks 0, 2" + host + ", 0.01 on ranks 1, 3" + host);
  TrainArguments again = folder.run("run");
  again.resume = true;
  CHECK(refused({folder.run("run"), again}) ==
        "the ranks disagree:\n  --resume: given on rank 1" + host + ", not given on rank 0" + host);
  CHECK(!fs::exists(folder.path / "run"));
}

TEST_CASE("run: what is each rank's own may differ") {
  const Folder folder;
  CHECK(refused({folder.run("run"), folder.run("elsewhere", {"threads=2", "log.every=3"})}).empty());
  CHECK(fs::exists(folder.path / "run"));
  CHECK(!fs::exists(folder.path / "elsewhere"));
}

TEST_CASE("run: another text on one rank is refused, and one that is missing is an error everywhere") {
  const Folder folder;
  for (const char* name : {"a", "b"}) std::ofstream(folder.path / name) << std::string(2000, name[0]);
  const auto with = [&](const std::string& text) {
    return folder.run("run", {"data.train=" + (folder.path / text).string()});
  };
  CHECK(refused({with("a"), with("b")}).find("content of the text: ") != std::string::npos);
  const std::string missing = refused({with("a"), with("a"), with("nowhere"), with("a")});
  CHECK(missing.find("rank 2 on " + this_host() + ": ") == 0);
  CHECK(missing.find("nowhere") != std::string::npos);
}

TEST_CASE("run: a configuration that one rank cannot read is an error everywhere") {
  const Folder folder;
  TrainArguments lost = folder.run("run");
  lost.config = (folder.path / "lost.toml").string();
  CHECK(refused({folder.run("run"), lost}).find("rank 1 on " + this_host() + ": ") == 0);
  CHECK(refused({folder.run("run", {"model.widht=8"}), folder.run("run", {"model.widht=8"})}).find("widht") !=
        std::string::npos);
}

TEST_CASE("run: a directory that holds a run is refused on all ranks by the one that looks") {
  const Folder folder;
  CHECK(refused({folder.run("run"), folder.run("run")}).empty());
  CHECK(refused({folder.run("run"), folder.run("run")})
            .starts_with("rank 0 on " + this_host() + ": " + (folder.path / "run").string()));
}
