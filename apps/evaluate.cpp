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

namespace {

/// What one rank sums.
struct Sums {
  double nats = 0, tokens = 0, bytes = 0;
  std::vector<std::vector<double>> load;  // per block; empty for dense ones

  /// In place, over ranks, in one call.
  void over(Communicator& all) {
    if (all.size() == 1) return;
    std::vector<double> numbers{nats, tokens, bytes};
    for (const auto& of_block : load) numbers.insert(numbers.end(), of_block.begin(), of_block.end());
    const Tensor sums = tensor_of(numbers);
    all.all_reduce(sums);
    const auto sum = sums.data<const double>();
    nats = sum[0], tokens = sum[1], bytes = sum[2];
    auto at = sum.begin() + 3;
    for (auto& of_block : load)
      for (double& pairs : of_block) pairs = *at++;
  }
};

}  // namespace

Evaluation evaluate(LanguageModel& model, const EvaluationData& data, int64_t batch, Mode mode, Step& arena,
                    Communicator& all) {
  const Part part("evaluation");
  Sums sums;
  for (const Block& block : model.blocks())
    sums.load.emplace_back(block.experts ? size_t(model.config().moe.layer.experts) : 0);
  const Device device = model.device();
  RouterContext context;
  context.mode = mode;
  context.seed = uint64_t(model.config().seed);
  for (int64_t turn = 0; turn < data.windows(); turn += batch * all.size())
    arena([&] {
      const int64_t first = turn + batch * all.rank();
      // A rank for which nothing is left works for the others' tokens only: what it does with the first windows again
      // does not count.
      const bool counts = first < data.windows();
      const Batch b = data.batch(counts ? first : 0, batch);
      const Passed passed = model(sequences_of(b, device), context);
      const CrossEntropy head = linear_cross_entropy(passed.hidden, model.head(), on_device(b.target, device), 1);
      if (!counts) return;
      const Tensor per_token = on_host(head.per_token);
      visit_accumulator(per_token.dtype(), [&]<class T>() {
        for (const T v : per_token.data<const T>()) sums.nats += double(v);
      });
      sums.tokens += double(b.token.size());
      sums.bytes += double(b.bytes);
      for (size_t block = 0; block < passed.statistics.size(); ++block) {
        const Tensor counts_of_block = on_host(passed.statistics[block].load);
        for (int64_t i = 0; i < counts_of_block.size(); ++i)
          sums.load[block][size_t(i)] += counts_of_block.data<const double>()[i];
      }
    });
  sums.over(all);
  require(sums.tokens > 0, "nothing to evaluate: the text has no token to predict");
  Evaluation e;
  e.tokens = int64_t(sums.tokens);
  e.bytes = int64_t(sums.bytes);
  e.loss = sums.nats / sums.tokens;
  e.perplexity = std::exp(e.loss);
  e.bits_per_byte = e.bytes > 0 ? sums.nats / std::numbers::ln2 / sums.bytes : 0;
  double pairs = 0;
  for (size_t block = 0; block < sums.load.size(); ++block) {
    if (sums.load[block].empty()) continue;
    pairs += std::accumulate(sums.load[block].begin(), sums.load[block].end(), 0.0);
    e.load.push_back(std::move(sums.load[block]));
    e.block.push_back(int64_t(block));
  }
  if (!e.load.empty()) e.experts_per_token = pairs / sums.tokens / double(e.load.size());
  return e;
}

}  // namespace agon
