#include "apps/sampler.h"

#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "core/random.h"
#include "tests/apps/tiny.h"
#include "tests/apps/tiny_run.h"
#include "tests/support/cuda.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("sample: temperature 0 takes the most likely, ties to the lower id") {
  const std::vector<float> logits{0, 2, 1, 2};
  SamplingOptions o;
  o.temperature = 0;
  CHECK(sample(logits, o, 0.99) == 1);
}

TEST_CASE("sample: frequencies follow the softmax, top-k and top-p cut the tail") {
  const std::vector<float> logits{std::log(1.f), std::log(2.f), std::log(4.f), std::log(1.f)};
  SamplingOptions o;
  o.temperature = 1;
  const auto count = [&] {
    std::map<int32_t, int> seen;
    for (int i = 0; i < 8000; ++i) ++seen[sample(logits, o, (i + 0.5) / 8000)];
    return seen;
  };
  CHECK(count() == std::map<int32_t, int>{{0, 1000}, {1, 2000}, {2, 4000}, {3, 1000}});
  o.top_k = 2;
  auto cut = count();
  CHECK(cut.size() == 2);
  CHECK(cut[2] == doctest::Approx(8000 * 4 / 6.).epsilon(0.001));
  o.top_k = 0;
  o.top_p = 0.7;  // 0.5 + 0.25 reach it
  cut = count();
  CHECK(cut.size() == 2);
  CHECK(cut[1] == doctest::Approx(8000 * 2 / 6.).epsilon(0.001));
  o.top_p = 1;
  o.temperature = 0.5;  // squares the odds
  CHECK(count()[2] == doctest::Approx(8000 * 16 / 22.).epsilon(0.001));
}

GPU_CASE("generate: on a GPU as on the CPU, past the end of the context") {
  Tiny here, there({"device=cuda"});
  const auto continued = [](Tiny& tiny) {
    SamplingOptions options;
    options.tokens = 24;
    options.temperature = 0;
    std::vector<int32_t> ids;
    generate(tiny.model, {1, 2, 3}, options, -1, [&](int32_t id) { return ids.push_back(id), true; });
    return ids;
  };
  CHECK(continued(there) == continued(here));

  RouterContext context;
  context.mode = Mode::eval;
  const auto logits = [&](Tiny& tiny) {  // one pass over a prompt, then a token after what the cache holds
    KeyValueCache cache = tiny.model.make_cache(16);
    std::vector<Tensor> all;
    for (const std::vector<int32_t>& ids : {std::vector<int32_t>{5, 6, 7, 8}, {9}}) {
      const auto put = [&](const Tensor& t) { return on_device(t, tiny.model.device()); };
      const auto n = int32_t(ids.size());
      const Tensor position({n}, DType::i32);
      fill_steps(position, cache.length, 1);
      all.push_back(tiny.model.logits(
          tiny.model({put(tensor_of(ids)), put(position), tensor_of<int32_t>({0, n})}, context, &cache).hidden));
    }
    return all;
  };
  const std::vector<Tensor> a = logits(there), b = logits(here);
  for (size_t i = 0; i < 2; ++i) CHECK(relative_error(a[i], b[i]) < 1e-4);
}
