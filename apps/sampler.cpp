#include "apps/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/copy.h"
#include "core/random.h"
#include "ops/copy_part.h"

namespace agon {

int32_t sample(std::span<const float> logits, const SamplingOptions& o, double draw) {
  for (size_t i = 0; i < logits.size(); ++i) check(!std::isnan(logits[i]), "the logit of token ", i, " is NaN");
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&](int32_t a, int32_t b) {
    return logits[size_t(a)] != logits[size_t(b)] ? logits[size_t(a)] > logits[size_t(b)] : a < b;
  });
  if (o.temperature <= 0) return order[0];
  size_t kept = o.top_k > 0 ? std::min(order.size(), size_t(o.top_k)) : order.size();
  std::vector<double> p(kept);
  for (size_t i = 0; i < kept; ++i)
    p[i] = std::exp((double(logits[size_t(order[i])]) - double(logits[size_t(order[0])])) / o.temperature);
  double sum = std::accumulate(p.begin(), p.end(), 0.0);
  if (o.top_p < 1) {
    double so_far = 0;
    for (size_t i = 0; i < kept; ++i)
      if ((so_far += p[i]) >= o.top_p * sum) kept = i + 1;
    sum = std::accumulate(p.begin(), p.begin() + std::ptrdiff_t(kept), 0.0);
  }
  double left = draw * sum;
  for (size_t i = 0; i < kept; ++i)
    if ((left -= p[i]) < 0) return order[i];
  return order[kept - 1];
}

namespace {

/// The tokens through the model after what the cache holds; the logits of the last one, as f32.
std::vector<float> next_logits(LanguageModel& model, std::span<const int32_t> ids, KeyValueCache& cache,
                               uint64_t seed) {
  const auto put = [&](const std::vector<int32_t>& values) { return on_device(tensor_of(values), model.device()); };
  Sequences at;
  at.token = put({ids.begin(), ids.end()});
  std::vector<int32_t> position(ids.size());
  std::iota(position.begin(), position.end(), int32_t(cache.length));
  at.position = put(position);
  at.offsets = tensor_of<int32_t>({0, int32_t(ids.size())});
  RouterContext context;
  context.mode = Mode::eval;
  context.seed = seed;
  const Tensor hidden = model(at, context, &cache).hidden;
  const int64_t width = hidden.shape(1), n = hidden.shape(0);
  const Tensor last({1, width}, hidden.dtype(), hidden.device());
  copy_part(last, 0, hidden, (n - 1) * width, width);
  const Tensor logits = on_host(converted(model.logits(last), DType::f32));
  return {logits.data<const float>().begin(), logits.data<const float>().end()};
}

}  // namespace

void generate(LanguageModel& model, std::vector<int32_t> context, const SamplingOptions& options, int32_t end,
              const std::function<bool(int32_t)>& emit) {
  check(!context.empty(), "generate needs a prompt of at least one token");
  const auto capacity = size_t(model.config().model.sequence);
  if (context.size() > capacity) context.erase(context.begin(), context.end() - std::ptrdiff_t(capacity));
  KeyValueCache cache = model.make_cache(int64_t(capacity));
  Random random({options.seed, 2});
  for (int64_t i = 0; i < options.tokens; ++i) {
    if (context.size() > capacity) {
      context.erase(context.begin(), context.begin() + std::ptrdiff_t((capacity + 1) / 2));
      cache.length = 0;
    }
    std::vector<float> logits =
        next_logits(model, std::span(context).subspan(size_t(cache.length)), cache, options.seed);
    const int32_t id = sample(logits, options, random.uniform());
    context.push_back(id);
    if (id == end || !emit(id)) return;
  }
}

}  // namespace agon
