#include "apps/account.h"

#include <doctest/doctest.h>

#include "apps/config_file.h"
#include "tests/apps/tiny_run.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("account: GPT-2 124M has its published size") {
  const auto comm = make_self_communicator();
  const Config c = parse_config(R"(
[model]
layers = 12
width = 768
heads = 12
sequence = 1024
activation = "gelu"
norm = "layer"
position = "learned"
tied = true
bias = true
)",
                                "gpt2");
  LanguageModel model(c, 50257, *comm);
  const Account a = account(model);
  CHECK(a.parameters == 124439808);
  CHECK(a.active == 124439808);
  // 12 D² per block, the head, attention 4 · D · context / 2 per block
  CHECK(a.forward_flops == doctest::Approx(2.0 * (12 * 12 * 768. * 768 + 50257. * 768) + 12 * 4 * 768. * 512));
  CHECK(a.training_flops() == 3 * a.forward_flops);
  CHECK(a.value_bytes == 124439808 * 4);
}

TEST_CASE("account: a token uses k of E experts, bf16 keeps masters") {
  const auto comm = make_self_communicator();
  const Config c = parse_config(R"(
precision = "bf16"
[model]
layers = 2
width = 16
heads = 2
sequence = 32
[moe]
experts = 8
expert_width = 24
every = 2
[moe.router]
k = 2
)",
                                "moe");
  LanguageModel model(c, 50, *comm);
  const Account a = account(model);
  const double attention = 4 * 16 * 16, dense = 3 * 16 * 48, expert = 3 * 16 * 24, gate = 8 * 16, norms = 5 * 16,
               table = 50 * 16;
  CHECK(a.parameters == int64_t(2 * attention + dense + 8 * expert + gate + norms + 2 * table));
  CHECK(a.active == doctest::Approx(2 * attention + dense + 2 * expert + gate + norms + 2 * table));
  CHECK(a.forward_flops == doctest::Approx(2 * (2 * attention + dense + 2 * expert + gate + table) + 2 * 4 * 16 * 16));
  CHECK(a.gradient_bytes == a.parameters * 4);
  const double in_f32 = gate + norms;  // no bf16 copy of what is always f32
  CHECK(a.value_bytes == int64_t(double(a.parameters) * 4 + (double(a.parameters) - in_f32) * 2));
}

TEST_CASE("account: a rank that holds a part of the experts counts the model of all, and the bytes it has") {
  const Config c = parse_config(std::string(kTiny) + kTinyRouter, "tiny");
  LanguageModel whole(c, 257, *make_self_communicator());
  const Account one = account(whole);
  run_on_threads(2, [&](Communicator& group) {
    LanguageModel model(c, 257, group);
    const Account half = account(model);
    CHECK(half.parameters == one.parameters);
    CHECK(half.active == one.active);
    CHECK(half.forward_flops == one.forward_flops);
    const int64_t experts = 4 * 3 * 16 * 12;
    CHECK(half.gradient_bytes == one.gradient_bytes - experts / 2 * 4);
  });
}

TEST_CASE("account: memory of this process and machine") {
  CHECK(available_memory() > 1 << 20);
  CHECK(peak_resident() > 1 << 20);
}
