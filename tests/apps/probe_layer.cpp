#include "apps/probe_layer.h"

#include <doctest/doctest.h>

#include "core/device.h"
#include "tests/apps/probe_strategies.h"
#include "tests/support/message.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using test::check_contains;
using testing::Registered;
using testing::ShowingOptions;

namespace {

ProbeLayer parsed(const std::string& toml) { return parse_probe_layer(toml, "layer.toml"); }
std::string refused(const std::string& toml) {
  return test::user_error([&] { parsed(toml); });
}

}  // namespace

TEST_CASE("probe_layer: defaults") {
  const ProbeLayer layer = parsed("width = 12");
  CHECK(layer.width == 12);
  CHECK(layer.numbers().compute == DType::f32);
  CHECK(layer.context().mode == Mode::train);
  CHECK(layer.context().seed == 1);
  CHECK_FALSE(layer.context().compete);
  CHECK(layer.config.moe.layer.experts == 8);
  CHECK(layer.config.moe.router.strategy == "token_choice");
  CHECK(layer.config.named("width") == "width (layer.toml:1)");
}

TEST_CASE("probe_layer: every key") {
  const Registered<ShowingOptions> competing("showing");
  const ProbeLayer layer = parsed(R"(
width = 12
dtype = "bf16"
device = "cpu"
seed = 7
mode = "compete"
[moe]
experts = 6
expert_width = 10
activation = "gelu"
bias = true
shared_experts = 2
shared_gate = true
[moe.router]
strategy = "showing"
)");
  CHECK(layer.numbers().compute == DType::bf16);
  CHECK(layer.numbers().master == DType::f32);
  CHECK(layer.context().compete);
  CHECK(layer.context().mode == Mode::train);
  CHECK(layer.context().seed == 7);
  CHECK(layer.config.moe.layer.expert_width == 10);
  CHECK(layer.config.moe.layer.shared_gate);
  CHECK(layer.config.moe.router.strategy == "showing");
  CHECK(parsed("width = 1\ndtype = 'f64'").numbers().compute == DType::f64);
  CHECK(parsed("width = 1\nmode = 'eval'").context().mode == Mode::eval);
  CHECK(parsed("width = 1\nmode = 'eval_noncausal'").context().mode == Mode::eval_noncausal);
  const ProbeLayer router = parsed("width = 1\n[moe.router]\nk = 3\nscore = 'sigmoid'");
  CHECK(router.config.moe.router.options->experts_per_token() == 3);
  const ProbeLayer composed =
      parsed("width = 1\nmode = 'compete'\n[moe.router]\nscore = 'relu_mean'\nselection = 'global'");
  CHECK(composed.config.moe.router.options->competition());
}

TEST_CASE("probe_layer: what is no key, section or value") {
  check_contains(refused("dtype = 'f64'"), {"layer.toml", "no width", "expected width"});
  check_contains(refused("widht = 3"), {"layer.toml:1:1: widht: unknown key", "did you mean \"width\"?"});
  check_contains(refused("width = 'a'"), {"layer.toml:1:1: width", "string \"a\"", "an integer in 1 .. 1000000"});
  check_contains(refused("width = 0"), {"width", "integer 0", "1 .. 1000000"});
  check_contains(refused("width = 4\ndtype = 'fp32'"), {"layer.toml:2:1: dtype", "\"fp32\"", "did you mean \"f32\"?"});
  check_contains(refused("width = 4\nmode = 'evl'"), {"mode", "one of train | compete", "did you mean \"eval\"?"});
  check_contains(refused("width = 4\nseed = -1"), {"seed", "integer -1", ">= 0"});
  check_contains(refused("width = 4\nk = 2"), {"layer.toml:2:1: k: unknown key", "\"moe.router.k\""});
  check_contains(refused("width = 4\nexperts = 2"), {"experts: unknown key", "\"moe.experts\""});
  check_contains(refused("width = 4\nmoe = 2"), {"layer.toml:2:1: moe", "integer 2", "the section [moe]"});
  check_contains(refused("width = 4\n[model]\nlayers = 2"), {"layer.toml:2:2: unknown section [model]"});
  check_contains(refused("[width]"), {"width is a key, found a section", "an integer"});
  check_contains(refused("width = 4\n[moe.experts]"), {"moe.experts is a key, found a section"});
  check_contains(refused("width = 4\n[[moe.layer]]\nindex = 0"), {"layer.toml:2", "[[moe.layer]]", "one layer"});
  check_contains(refused("width ="), {"layer.toml:1"});
}

TEST_CASE("probe_layer: keys in the wrong section") {
  check_contains(refused("[moe]\nwidth = 4"), {"layer.toml:2:1: moe.width", "\"width\" before the first section"});
  check_contains(refused("width = 4\n[moe.router]\nmode = 'eval'"),
                 {"layer.toml:3:1: moe.router.mode", "\"mode\" before the first section"});
  check_contains(refused("width = 4\n[moe]\nk = 2"), {"moe.k: unknown key", "\"moe.router.k\""});
  check_contains(refused("width = 4\n[moe]\nexpertz = 2"), {"moe.expertz", "in [moe]", "did you mean \"experts\"?"});
  check_contains(refused("width = 4\n[moe]\nevery = 2"), {"layer.toml:3:1: moe.every", "one layer"});
  check_contains(refused("width = 4\n[moe]\nfirst_dense = 0"), {"layer.toml:3:1: moe.first_dense", "one layer"});
}

TEST_CASE("probe_layer: what the strategy refuses names its place") {
  check_contains(refused("width = 4\n[moe]\nexperts = 2\n[moe.router]\nk = 3"),
                 {"moe.router.k = 3, but there are 2 experts", "k from layer.toml:5"});
  check_contains(refused("width = 4\n[moe.router]\nstrategy = 'token_choise'"),
                 {"layer.toml:3:1: moe.router.strategy", "did you mean \"token_choice\"?"});
  check_contains(refused("width = 4\n[moe.router]\nnrom = 'none'"), {"layer.toml:3:1", "did you mean \"norm\"?"});
  check_contains(refused("width = 4\n[moe.router]\njitter = 2"), {"layer.toml:3:1: moe.router.jitter", "< 1"});
  check_contains(refused("width = 4\n[moe]\nshared_gate = true"), {"moe.shared_gate (layer.toml:3)", "shared_experts"});
}

TEST_CASE("probe_layer: modes and devices there are not") {
  check_contains(refused("width = 4\nmode = 'compete'"),
                 {"mode (layer.toml:2)", "\"token_choice\"", "never compete", "eval_noncausal"});
  check_contains(refused("width = 4\ndevice = 'gpu'"),
                 {"device (layer.toml:2)", "\"gpu\"", "expected cpu, cuda or cuda:N"});
  check_contains(refused("width = 4\ndtype = 'f64'\ndevice = 'cuda'"), {"dtype (layer.toml:2)", "f64", "on cuda"});
}

TEST_CASE("probe_layer: from a file") {
  const testing::TemporaryFolder folder;
  testing::put(folder / "a.toml", "width = 3\n");
  CHECK(load_probe_layer(folder / "a.toml").width == 3);
  testing::put(folder / "b.toml", "width = 3\nwdith = 4\n");
  check_contains(test::user_error([&] { load_probe_layer(folder / "b.toml"); }), {"b.toml:2:1: wdith"});
  check_contains(test::user_error([&] { load_probe_layer(folder / "c.toml"); }), {"c.toml"});
}
