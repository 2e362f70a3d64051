#include <doctest/doctest.h>

#include "tests/apps/run_folder.h"
#include "tests/apps/run_log.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("eval: the run's own validation loss, another text, realised k") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("run")) == 0);
  const std::string run = (folder.path / "run").string();
  CHECK(eval({run, "", {}}) == 0);
  CHECK(quiet.text().find("realised k     2.0000") != std::string::npos);
  char loss[32];
  std::snprintf(loss, sizeof loss, "loss           %.6f", double(log_of(folder.path / "run")[11]["val_loss"]));
  CHECK(quiet.text().find(loss) != std::string::npos);
  std::ofstream(folder.path / "text") << "The quick brown fox jumps over the lazy dog.\n";
  CHECK(eval({run + "/best", (folder.path / "text").string(), {}}) == 0);
  CHECK(quiet.text().find("tokens         45") !=
        std::string::npos);  // 45 bytes and the end of the document, but the first
  CHECK_THROWS_AS(eval({(folder.path / "nowhere").string(), "", {}}), UserError);
  CHECK_THROWS_AS(eval({run, "", {"model.wdith=3"}}), UserError);
  CHECK_THROWS_AS(eval({run, "", {"model.width=24"}}), UserError);
}
