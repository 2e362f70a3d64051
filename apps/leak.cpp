#include "apps/leak.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "apps/trainer.h"
#include "core/copy.h"
#include "core/profile.h"

namespace agon {

namespace {

constexpr int64_t kWindows = 4, kPlaces = 3;

/// The largest |a - b| over the rows [begin, end); infinite where one is NaN.
double difference(const Tensor& a, const Tensor& b, int64_t begin, int64_t end) {
  const int64_t width = a.shape(1);
  return visit_float(a.dtype(), [&]<class T>() {
    const auto x = a.data<const T>(), y = b.data<const T>();
    double largest = 0;
    for (int64_t i = begin * width; i < end * width; ++i) {
      const double d = std::abs(double(Accumulator<T>(x[size_t(i)])) - double(Accumulator<T>(y[size_t(i)])));
      largest = std::max(largest, std::isnan(d) ? std::numeric_limits<double>::infinity() : d);
    }
    return largest;
  });
}

void compare(const Tensor& before, const Tensor& after, const Batch& batch, int64_t at, Leak& leak) {
  const auto offset = batch.offsets.data<const int32_t>();
  const auto next = std::ranges::upper_bound(offset, int32_t(at));
  const int64_t begin = *(next - 1), end = *next, tokens = before.shape(0);
  leak.earlier = std::max(leak.earlier, difference(before, after, begin, at));
  leak.later = std::max(leak.later, difference(before, after, at, end));
  leak.others = std::max({leak.others, difference(before, after, 0, begin), difference(before, after, end, tokens)});
  ++leak.changes;
}

}  // namespace

Leak measure_leak(LanguageModel& model, const EvaluationData& data, int64_t batch, Mode mode, Step& arena) {
  const Part part("leak check");
  const auto ids = int32_t(model.vocabulary());
  require(ids >= 2, "a vocabulary of ", ids, ": there is no other token to change one to");
  RouterContext context;
  context.mode = mode;
  context.seed = uint64_t(model.config().seed);
  const int64_t sequence = model.config().model.sequence, windows = std::min(kWindows, data.windows());
  Leak leak;
  for (int64_t i = 0; i < windows; ++i)
    arena([&] {
      const int64_t window = i * data.windows() / windows, first = window / batch * batch;
      const Batch b = data.batch(first, batch);
      const Tensor before = on_host(model(sequences_of(b, model.device()), context).hidden);
      const int64_t start = (window - first) * sequence, length = std::min(sequence, b.token.size() - start);
      for (int64_t place = 1; place <= kPlaces; ++place) {
        const int64_t at = start + length * place / (kPlaces + 1);
        Batch changed = b;
        changed.token = clone(b.token);
        int32_t& id = changed.token.data<int32_t>()[size_t(at)];
        id = (id + std::max(1, ids / 2)) % ids;
        compare(before, on_host(model(sequences_of(changed, model.device()), context).hidden), b, at, leak);
      }
    });
  require(leak.changes > 0, "no leak to look for: the text has no token to predict");
  return leak;
}

}  // namespace agon
