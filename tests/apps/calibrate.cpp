#include <doctest/doctest.h>

#include "tests/apps/run_folder.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("calibrate: thresholds beside the manifest, for any budget, used by eval and generate") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(train(folder.run("run")) == 0);
  const std::string run = (folder.path / "run").string(), checkpoint = folder.checkpoint("run", 12);
  const std::string manifest = folder.bytes(checkpoint + "/manifest.json");
  const std::string pool = "moe.router.strategy=unified";
  CHECK_THROWS_WITH_AS(calibrate_thresholds({run, "builtin:domains", {}}), doctest::Contains("nothing to calibrate"),
                       UserError);
  CHECK_THROWS_AS(calibrate_thresholds({run, (folder.path / "nowhere").string(), {pool}}), UserError);
  CHECK_FALSE(fs::exists(checkpoint + "/calibration.safetensors"));
  CHECK(calibrate_thresholds({run, "builtin:domains", {pool}}) == 0);
  CHECK(fs::exists(checkpoint + "/calibration.safetensors"));
  CHECK(folder.bytes(checkpoint + "/manifest.json") == manifest);
  CHECK(contains(quiet.text(), "threshold 1"));

  for (const char* k : {"moe.router.k=2", "moe.router.k=0.7"}) {
    const size_t before = quiet.text().size();
    CHECK(eval({run, "", {pool, k}}) == 0);
    const std::string shown = quiet.text().substr(before);
    CHECK(contains(shown, "thresholds     " + checkpoint + "/calibration.safetensors of builtin:domains, "));
    const double realised = std::stod(shown.substr(shown.find("realised k") + 10));
    CHECK(realised == doctest::Approx(std::stod(std::string(k).substr(13))).epsilon(0.1));
  }
  CHECK(contains(user_error([&] { eval({run, "", {pool, "moe.router.alpha=0.25"}}); }), "alpha: 0.5 -> 0.25"));
  GenerateArguments g;
  g.checkpoint = run;
  g.overrides = {pool, "moe.router.k=1"};
  g.sampling.tokens = 20;
  CHECK(generate_text(g) == 0);

  // The run goes on as if the file were not there.
  TrainArguments longer = folder.run("run", {"train.steps=14"});
  longer.resume = true;
  CHECK(train(longer) == 0);
}
