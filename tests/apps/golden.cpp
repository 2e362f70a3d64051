#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "core/error.h"
#include "tests/apps/tiny_run.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

namespace {

constexpr std::pair<const char*, const char*> kStrategies[] = {
    {"token_choice", kTinyRouter},
    {"expert_choice", "[moe.router]\nstrategy = 'expert_choice'\nscope = 'sequence'\nk = 1.5"},
    {"competition", "[moe.router]\nstrategy = 'competition'\nrate = 0.5\nwarm_up = 0"},
    {"unified", "[moe.router]\nstrategy = 'unified'\nk = 1.5"},
};

/// The losses in tests/golden/NAME.txt, one a line.
std::vector<double> golden(const std::string& name) {
  std::ifstream in(std::string(AGON_SOURCE_DIR) + "/tests/golden/" + name + ".txt");
  std::vector<double> losses;
  for (std::string line; std::getline(in, line);) losses.push_back(std::strtod(line.c_str(), nullptr));
  return losses;
}

}  // namespace

// A change that is not meant to change numbers leaves these as they are; one that is writes them anew (the message
// below has them) and says why. The tolerance covers the last bits of libm's log, erf, pow and cos, which differ
// between processors, as may std::exp in the loss; matrix products are the same everywhere.
TEST_CASE("golden losses: 20 steps of a tiny model, for every strategy and precision") {
  for (const auto& [strategy, router] : kStrategies)
    for (const auto& [precision, tolerance] : {std::pair{"f64", 1e-10}, {"fp32", 1e-5}, {"bf16", 1e-3}}) {
      Tiny tiny({text("precision=", precision)}, router);
      const std::vector<double> losses = tiny.losses(20), expected = golden(text(strategy, '.', precision));
      std::string found;
      for (const double loss : losses) {
        char line[32];
        std::snprintf(line, sizeof line, "%.17g\n", loss);
        found += line;
      }
      CAPTURE(std::string(strategy));
      CAPTURE(std::string(precision));
      INFO("these losses:\n" << found);
      CHECK(expected.size() == losses.size());
      for (size_t i = 0; i < std::min(losses.size(), expected.size()); ++i)
        CHECK(losses[i] == doctest::Approx(expected[i]).epsilon(tolerance));
    }
}

GPU_CASE("golden: 20 steps of every strategy lose as on the CPU") {
  for (const auto& [strategy, router] : kStrategies)
    for (const auto& [precision, tolerance] : {std::pair{"fp32", 1e-4}, {"bf16", 1e-2}}) {
      CAPTURE(std::string(strategy));
      CAPTURE(std::string(precision));
      const int steps = kSlow && tolerance > 1e-4 ? 5 : 20;
      const std::vector<double> losses = Tiny({"device=cuda", text("precision=", precision)}, router).losses(steps),
                                expected = golden(text(strategy, '.', precision));
      REQUIRE(expected.size() == 20);
      for (size_t i = 0; i < losses.size(); ++i) CHECK(losses[i] == doctest::Approx(expected[i]).epsilon(tolerance));
    }
}

GPU_CASE("golden: the same bits twice, whatever order threads run in") {
  for (const auto& [strategy, router] : kStrategies) {
    CAPTURE(std::string(strategy));
    const auto losses = [&, section = router](uint64_t order) {
      const ThreadOrder changed(order);
      return Tiny({"device=cuda", "train.micro_batch=2"}, section).losses(3);
    };
    const std::vector<double> once = losses(0);
    CHECK(losses(0) == once);
    CHECK(losses(1) == once);
    CHECK(losses(2) == once);
  }
}
