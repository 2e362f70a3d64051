#include "apps/evaluate.h"

#include <cmath>
#include <numbers>
#include <numeric>

#include "apps/trainer.h"
#include "core/copy.h"
#include "core/profile.h"
#include "ops/linear_cross_entropy.h"

namespace agon {

double Evaluation::experts_per_token_of(size_t layer) const {
  return std::accumulate(load[layer].begin(), load[layer].end(), 0.0) / double(tokens);
}

Evaluation evaluate(LanguageModel& model, const EvaluationData& data, int64_t batch, Mode mode, Step& arena) {
  const Part part("evaluation");
  Evaluation e;
  double nats = 0, pairs = 0;
  const Device device = model.device();
  RouterContext context;
  context.mode = mode;
  context.seed = uint64_t(model.config().seed);
  for (int64_t first = 0; first < data.windows(); first += batch)
    arena([&] {
      const Batch b = data.batch(first, batch);
      const Passed passed = model(sequences_of(b, device), context);
      const CrossEntropy head = linear_cross_entropy(passed.hidden, model.head(), on_device(b.target, device), 1);
      const Tensor per_token = on_host(head.per_token);
      visit_accumulator(per_token.dtype(), [&]<class T>() {
        for (const T v : per_token.data<const T>()) nats += double(v);
      });
      e.tokens += b.token.size();
      e.bytes += b.bytes;
      size_t layer = 0;
      for (size_t block = 0; block < passed.statistics.size(); ++block) {
        const Tensor counts = on_host(passed.statistics[block].load);
        if (!counts) continue;
        if (e.load.size() == layer) {
          e.load.emplace_back(size_t(counts.size()), 0.0);
          e.block.push_back(int64_t(block));
        }
        for (size_t i = 0; i < e.load[layer].size(); ++i) {
          e.load[layer][i] += counts.data<const double>()[i];
          pairs += counts.data<const double>()[i];
        }
        ++layer;
      }
    });
  require(e.tokens > 0, "nothing to evaluate: the text has no token to predict");
  e.loss = nats / double(e.tokens);
  e.perplexity = std::exp(e.loss);
  e.bits_per_byte = e.bytes > 0 ? nats / std::numbers::ln2 / double(e.bytes) : 0;
  if (!e.load.empty()) e.experts_per_token = pairs / double(e.tokens) / double(e.load.size());
  return e;
}

}  // namespace agon
