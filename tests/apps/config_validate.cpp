#include <functional>

#include "apps/config.h"
#include "core/device.h"
#include "tests/support/message.h"
#include "tests/support/toy_strategy.h"

using namespace agon;
using namespace agon::test;

namespace {

Config with_experts() {
  Config c;
  c.moe.enabled = true;
  c.moe.router = router_named("toy");
  return c;
}

/// The message about a config that `change` made invalid.
std::string refused(Config c, const std::function<void(Config&)>& change) {
  c.validate();
  change(c);
  return user_error([&] { c.validate(); });
}

}  // namespace

TEST_CASE("config_validate: heads") {
  const Config c;
  check_contains(refused(c, [](Config& x) { x.model.heads = 3; }), {"model.heads", "3 heads", "width of 128"});
  check_contains(refused(c, [](Config& x) { x.model.kv_heads = 3; }), {"model.kv_heads", "3", "4 heads"});
  check_contains(refused(c, [](Config& x) { x.model.kv_heads = 8; }), {"model.kv_heads"});
  check_contains(refused(c, [](Config& x) { x.model.head_width = 33; }), {"model.head_width", "33", "even"});
  check_contains(refused(c, [](Config& x) { x.model.width = 12; }), {"model.head_width", "has 3", "even"});
  Config odd;
  odd.model.position = "learned";
  odd.model.head_width = 33;
  odd.model.heads = 3;  // need not divide the width when the head's is given
  odd.model.kv_heads = 1;
  odd.validate();
}

TEST_CASE("config_validate: the message says where the value came from") {
  Config c;
  c.model.heads = 3;
  c.origin["model.heads"] = "a.toml:7";
  check_contains(user_error([&] { c.validate(); }), {"model.heads (a.toml:7)"});
}

TEST_CASE("config_validate: experts") {
  const ToyStrategies strategies;
  const Config c = with_experts();
  check_contains(refused(c, [](Config& x) { x.moe.layer.experts = 1; }), {"moe.router.k = 2 exceeds the 1 experts"});
  check_contains(refused(c, [](Config& x) { x.parallel.expert = 3; }), {"parallel.expert", "8 experts", "3 ranks"});
  check_contains(refused(c, [](Config& x) { x.moe.layer.shared_gate = true; }),
                 {"moe.shared_gate", "moe.shared_experts"});
  check_contains(refused(c, [](Config& x) { x.moe.placement.every = 5; }), {"every = 5", "no block with experts"});
  check_contains(refused(c, [](Config& x) { x.moe.placement.first_dense = 4; }),
                 {"moe.first_dense", "first_dense = 4"});
  check_contains(refused(c, [](Config& x) { x.moe.layers[4] = router_named("toy"); }),
                 {"moe.layer.4", "below model.layers = 4"});
  check_contains(refused(c,
                         [](Config& x) {
                           x.moe.placement.every = 2;
                           x.moe.layers[0] = router_named("toy");
                         }),
                 {"moe.layer.0", "block 0 has no experts"});
  check_contains(refused(c,
                         [](Config& x) {
                           x.moe.layers[1] = router_named("toy");
                           dynamic_cast<ToyOptions&>(*x.moe.layers[1].options).k = 9;
                         }),
                 {"moe.layer.1", "k = 9 exceeds the 8 experts"});
  check_contains(refused(Config{}, [](Config& x) { x.parallel.expert = 2; }), {"parallel.expert", "[moe]"});
}

TEST_CASE("config_validate: training") {
  const Config c;
  check_contains(refused(c, [](Config& x) { x.train.micro_batch = 3; }), {"train.micro_batch", "3", "batch of 8"});
  check_contains(refused(c, [](Config& x) { x.train.out = ""; }), {"train.out", "empty"});
  check_contains(refused(c, [](Config& x) { x.optimizer.rate = 1e-5; }), {"optimizer.final_rate", "optimizer.rate"});
  Config constant = c;
  constant.optimizer.schedule = "constant";
  constant.optimizer.rate = 1e-5;
  constant.validate();
  Config brief = c;
  brief.train.steps = 20;  // within the warm-up
  brief.validate();
}

TEST_CASE("config_validate: data") {
  const Config c;
  check_contains(refused(c, [](Config& x) { x.data.train = ""; }), {"data.train", "empty"});
  check_contains(refused(c, [](Config& x) { x.data.tokenizer = "byte"; }),
                 {"data.tokenizer", "\"byte\"", "bytes, chars"});
  Config file = c;
  file.data.tokenizer = AGON_SOURCE_DIR "/CMakeLists.txt";
  file.validate();
}

TEST_CASE("config_validate: device and precision") {
  Config c;
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:1234", "CUDA"})
    check_contains(refused(c, [&](Config& x) { x.device = name; }),
                   {"device: \"", name, "expected cpu, cuda or cuda:N"});
  c.device = "cuda:12";
  c.validate();  // whether there is one is asked where it is used: a checkpoint may go on elsewhere
  CHECK(c.parsed_device() == Device{Device::cuda, 12});
  check_contains(user_error([&] { c.use_device(); }), {"device", kHasCuda ? "GPU" : "built without CUDA"});
  c.device = "cpu";
  CHECK(c.use_device() == Device{});
  c.precision = "f64";
  c.validate();
  c.device = "cuda";
  check_contains(user_error([&] { c.validate(); }), {"precision", "f64 exists on the CPU only", "on cuda"});
}
