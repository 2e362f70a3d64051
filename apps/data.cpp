#include "apps/data.h"

#include <algorithm>

#include "core/error.h"
#include "core/random.h"

namespace agon {

namespace {

// Streams of the run's seed.
constexpr uint64_t kShuffle = 0x646174612e73, kShift = 0x646174612e6f, kOffsets = 0x646174612e72;

/// A number in [0, bound); of a 64-bit draw, so the bias is below bound / 2^64.
int64_t draw(RandomKey key, uint64_t n, int64_t bound) {
  const auto words = philox(key, n);
  return int64_t((uint64_t(words[0]) << 32 | words[1]) % uint64_t(bound));
}

/// Half-open, of input tokens.
struct Window {
  int64_t begin, end;
};

Batch make_batch(const Tokens& tokens, const std::vector<Window>& windows, const Tokenizer& tokenizer, bool mask) {
  int64_t total = 0;
  for (const Window& w : windows) total += w.end - w.begin;
  Batch batch{Tensor({total}, DType::i32), Tensor({total}, DType::i32), Tensor({total}, DType::i32), {}};
  const auto token = batch.token.data<int32_t>(), target = batch.target.data<int32_t>(),
             position = batch.position.data<int32_t>();
  std::vector<int32_t> offsets;
  size_t row = 0;
  for (const Window& w : windows)
    for (int64_t t = w.begin; t < w.end; ++t, ++row) {
      token[row] = tokens.id[size_t(t)];
      target[row] = tokens.id[size_t(t) + 1];
      batch.bytes += tokenizer.bytes_of(target[row]);
      // The token between two documents begins the later one: it is all that the first token of a document is told.
      if (t == w.begin || (mask && token[row] == tokenizer.end_of_document())) offsets.push_back(int32_t(row));
      position[row] = int32_t(row) - offsets.back();
    }
  offsets.push_back(int32_t(total));
  batch.offsets = Tensor({int64_t(offsets.size())}, DType::i32);
  std::copy(offsets.begin(), offsets.end(), batch.offsets.data<int32_t>().begin());
  return batch;
}

/// The number of tokens. Throws UserError when they do not make one sequence and the target of its last token.
int64_t enough(const Tokens& tokens, int64_t sequence) {
  const auto found = int64_t(tokens.id.size());
  require(found > sequence, tokens.source, ": ", found, " tokens to train on, expected at least ", sequence + 1,
          " for one sequence of model.sequence = ", sequence);
  return found;
}

}  // namespace

int64_t permuted(int64_t i, int64_t n, uint64_t seed, uint64_t stream) {
  check(i >= 0 && i < n, "a permutation of ", n, " has no element ", i);
  int half = 1;
  while ((int64_t(1) << 2 * half) < n) ++half;
  const uint64_t mask = (uint64_t(1) << half) - 1;
  const RandomKey key = RandomKey{seed, kShuffle}.with(stream);
  auto x = uint64_t(i);
  do {
    uint64_t left = x >> half, right = x & mask;
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t mixed = left ^ (philox(key, right << 2 | round)[0] & mask);
      left = right;
      right = mixed;
    }
    x = left << half | right;
  } while (x >= uint64_t(n));
  return int64_t(x);
}

DataOrder::DataOrder(const std::string& order, int64_t tokens, int64_t sequence, uint64_t seed)
    : kind_(order == "random"       ? Kind::random
            : order == "sequential" ? Kind::sequential
                                    : Kind::shuffled),
      tokens_(tokens),
      sequence_(sequence),
      seed_(seed) {
  require(order == "random" || order == "sequential" || order == "shuffled", "data.order = \"", order,
          "\": expected shuffled, random or sequential");
  check(sequence > 0 && tokens > sequence, "no window of ", sequence, " + 1 tokens in ", tokens);
  // Room for a shift of less than L, except in a text of one window.
  windows_ = kind_ == Kind::shuffled ? std::max<int64_t>(1, (tokens - sequence) / sequence) : (tokens - 1) / sequence;
}

int64_t DataOrder::offset(int64_t n) const {
  if (kind_ == Kind::random) return draw({seed_, kOffsets}, uint64_t(n), tokens_ - sequence_);
  if (kind_ == Kind::sequential) return n % windows_ * sequence_;
  const int64_t epoch = n / windows_, free = std::min(sequence_, tokens_ - windows_ * sequence_);
  return draw({seed_, kShift}, uint64_t(epoch), free) +
         permuted(n % windows_, windows_, seed_, uint64_t(epoch)) * sequence_;
}

TrainingData::TrainingData(const Corpus& corpus, const DataOptions& options, int64_t sequence, int64_t batch,
                           uint64_t seed)
    : corpus_(corpus),
      order_(options.order, enough(corpus.train, sequence), sequence, seed),
      sequence_(sequence),
      batch_(batch),
      mask_(options.mask_documents) {}

Batch TrainingData::batch(int64_t step, const Slice& slice) const {
  const int64_t parts = slice.micros * slice.ranks;
  check(parts > 0 && batch_ % parts == 0, slice.micros, " micro-batches on ", slice.ranks,
        " ranks do not divide a batch of ", batch_);
  const int64_t count = batch_ / parts;
  return sequences(step * batch_ + (slice.micro * slice.ranks + slice.rank) * count, count);
}

Batch TrainingData::sequences(int64_t first, int64_t count) const {
  std::vector<Window> windows;
  for (int64_t n = first; n < first + count; ++n) {
    const int64_t at = order_.offset(n);
    windows.push_back({at, at + sequence_});
  }
  Batch batch = make_batch(corpus_.train, windows, *corpus_.tokenizer, mask_);
  batch.first_row = first * sequence_;
  return batch;
}

double TrainingData::epochs(int64_t steps) const {
  return double(steps * tokens_per_step()) / double(corpus_.train.id.size());
}

EvaluationData::EvaluationData(const Tokens& tokens, const Tokenizer& tokenizer, const DataOptions& options,
                               int64_t sequence, int64_t limit)
    : tokens_(tokens),
      tokenizer_(tokenizer),
      sequence_(sequence),
      targets_(int64_t(tokens.id.size()) - 1),
      mask_(options.mask_documents) {
  check(sequence > 0, "a sequence of ", sequence, " tokens");
  require(targets_ > 0, tokens.source, ": ", tokens.id.size(), " tokens to evaluate on, expected at least 2");
  if (limit > 0) targets_ = std::min(targets_, limit);
}

int64_t EvaluationData::windows() const { return (targets_ + sequence_ - 1) / sequence_; }

Batch EvaluationData::batch(int64_t first, int64_t count) const {
  std::vector<Window> windows;
  for (int64_t w = first; w < std::min(first + count, this->windows()); ++w)
    windows.push_back({w * sequence_, std::min((w + 1) * sequence_, targets_)});
  Batch batch = make_batch(tokens_, windows, tokenizer_, mask_);
  batch.first_row = first * sequence_;
  return batch;
}

}  // namespace agon
