#include "apps/model.h"

#include <cmath>
#include <utility>

#include "autograd/recompute.h"
#include "autograd/tape.h"
#include "core/copy.h"
#include "core/profile.h"
#include "moe/schedule.h"
#include "ops/attention.h"
#include "ops/copy_part.h"
#include "ops/dropout.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"

namespace agon {

namespace {

Parameter matrix(Shape shape, Precision precision, double deviation) {
  Parameter p(shape, precision);
  p.init = Init::normal;
  p.deviation = deviation;
  return p;
}

Parameter gains(int64_t n, Precision precision) {
  Parameter p({n}, in_master(precision));
  p.init = Init::one;
  return p;
}

/// The deviation of projections that write into the residual stream.
double residual_deviation(const ModelOptions& o) {
  return o.scaled_init ? o.init / std::sqrt(2.0 * double(o.layers)) : o.init;
}

/// Writes rows at the end of a cache.
void append(const Tensor& cache, const Tensor& rows, int64_t at) {
  copy_part(cache, at * (rows.size() / rows.shape(0)), rows, 0, rows.size());
}

/// x + f(norm(x)), of which the tape keeps x alone. The sum comes without a norm, which would be kept.
template <class F>
Normed added_again(const Tensor& x, const Norm& norm, const F& f) {
  return {recompute([&norm, f](std::span<const Tensor> in) { return add(in[0], f(norm(in[0]))); }, {x}), {}};
}

}  // namespace

Norm::Norm(int64_t n, const ModelOptions& options, Precision precision)
    : layer(options.norm == "layer"), epsilon(options.norm_epsilon), gain(gains(n, precision)) {
  if (layer && options.bias) bias = Parameter({n}, in_master(precision));
}

Tensor Norm::operator()(const Tensor& x) const {
  return layer ? layer_norm(x, gain, bias, epsilon) : rms_norm(x, gain, epsilon);
}

Normed Norm::operator()(const Tensor& x, Tensor residual) const {
  return layer ? add_layer_norm(x, std::move(residual), gain, bias, epsilon)
               : add_rms_norm(x, std::move(residual), gain, epsilon);
}

Projection::Projection(int64_t outputs, int64_t inputs, bool with_bias, Precision precision, double deviation)
    : weight(matrix({outputs, inputs}, precision, deviation)) {
  if (with_bias) bias = Parameter({outputs}, precision);
}

Tensor Projection::operator()(const Tensor& x) const { return linear(x, weight, bias); }

SelfAttention::SelfAttention(const ModelOptions& o, Precision precision)
    : heads(o.heads),
      kv_heads(o.kv_heads ? o.kv_heads : o.heads),
      head_width(o.head_width ? o.head_width : o.width / o.heads),
      rotary(o.position == "rope"),
      theta(o.rope_theta),
      query(heads * head_width, o.width, o.bias, precision, o.init),
      key(kv_heads * head_width, o.width, o.bias, precision, o.init),
      value(kv_heads * head_width, o.width, o.bias, precision, o.init),
      out(o.width, heads * head_width, o.bias, precision, residual_deviation(o)) {
  if (o.qk_norm) {
    query_norm.emplace(head_width, o, precision);
    key_norm.emplace(head_width, o, precision);
  }
}

Tensor SelfAttention::operator()(const Tensor& x, const Sequences& at, KeyValueCache* cache, int block) const {
  const int64_t n = x.shape(0);
  Tensor q = query(x).reshape({n, heads, head_width});
  Tensor k = key(x).reshape({n, kv_heads, head_width});
  Tensor v = value(x).reshape({n, kv_heads, head_width});
  if (query_norm) q = (*query_norm)(q), k = (*key_norm)(k);
  if (rotary) q = rope(q, at.position, theta), k = rope(k, at.position, theta);
  Tensor key_offsets = at.offsets_there;
  if (cache) {
    check(cache->length + n <= cache->capacity, "a cache of ", cache->capacity, " tokens is full");
    append(cache->keys[size_t(block)], k, cache->length);
    append(cache->values[size_t(block)], v, cache->length);
    k = cache->keys[size_t(block)];
    v = cache->values[size_t(block)];
    key_offsets = on_device(tensor_of<int32_t>({0, int32_t(cache->length + n)}), x.device());
  }
  return out(attention(q, k, v, at.offsets_there, key_offsets).reshape({n, heads * head_width}));
}

Block::Block(const Config& config, int64_t index, Communicator& comm)
    : attention_norm(config.model.width, config.model, config.numbers()),
      attention(config.model, config.numbers()),
      feed_forward_norm(config.model.width, config.model, config.numbers()) {
  const ModelOptions& o = config.model;
  if (!config.moe.has_experts(index)) {
    dense = std::make_unique<FeedForward>(o.width, o.feed_forward_width(), activation_named(o.activation), o.bias,
                                          config.numbers(), o.init, residual_deviation(o));
    return;
  }
  MoeOptions layer = config.moe.layer;
  if (layer.expert_width == 0) layer.expert_width = o.feed_forward_width();
  experts = std::make_unique<MoeLayer>(layer, *config.moe.router_of(index).options, o.width, config.numbers(),
                                       MoeInit{o.init, o.init, residual_deviation(o)}, comm, config.parallel.rows());
}

LanguageModel::LanguageModel(const Config& config, int64_t vocabulary, Communicator& comm)
    : config_(config), embedding_(matrix({vocabulary, config.model.width}, config.numbers(), config.model.init)) {
  const ModelOptions& o = config_.model;
  if (o.position == "learned") positions_ = matrix({o.sequence, o.width}, config_.numbers(), o.init);
  for (int64_t i = 0; i < o.layers; ++i) blocks_.emplace_back(config_, i, comm);
  norm_ = Norm(o.width, o, config_.numbers());
  if (!o.tied) head_ = matrix({vocabulary, o.width}, config_.numbers(), o.init);
  name_parameters(*this);
  each_parameter(*this, [](const std::string&, Parameter& p) { p.decays = p.init == Init::normal; });
  initialise(*this, uint64_t(config_.seed));
}

Tensor LanguageModel::dropped(const Tensor& x, const Sequences& at, const RouterContext& context, uint64_t site) const {
  if (config_.model.dropout == 0 || context.mode != Mode::train) return x;
  return dropout(x, config_.model.dropout, RandomKey{context.seed, 1}.with(uint64_t(context.step)).with(site),
                 at.first_row);
}

const Norm& LanguageModel::norm_before(size_t i) const {
  return i < blocks_.size() ? blocks_[i].attention_norm : norm_;
}

Passed LanguageModel::operator()(const Sequences& sequences, const RouterContext& given, KeyValueCache* cache,
                                 const Watcher& watch, std::span<const Tensor> counts_so_far) {
  Sequences at = sequences;
  if (!at.offsets_there) at.offsets_there = on_device(at.offsets, device());
  RouterContext context = given;
  context.sequence_offsets = at.offsets;
  context.sequence_offsets_there = at.offsets_there;
  context.token = at.token;
  context.first_row = at.first_row;
  if (context.decided) context.decided->resize(blocks_.size());
  const bool again = config_.model.recompute;
  Passed passed;
  Normed h;  // the residual stream, and its norm for what reads it next, which makes its own when it runs again
  {
    const Part part("embedding");
    Tensor x = embedding(embedding_, at.token);
    if (positions_) x = add(x, embedding(positions_, at.position));
    h.sum = dropped(x, at, context, 0);
    if (!again) h.y = norm_before(0)(h.sum);
  }
  for (size_t i = 0; i < blocks_.size(); ++i) {
    Block& block = blocks_[i];
    const int index = int(i);
    {
      const Part part("attention");
      const auto attend = [this, &block, at, context, cache, index](const Tensor& x) {
        return dropped(block.attention(x, at, cache, index), at, context, 2 * uint64_t(index) + 1);
      };
      h = again ? added_again(h.sum, block.attention_norm, attend) : block.feed_forward_norm(h.sum, attend(h.y));
    }
    if (watch) watch(index, "attention", h.sum);
    if (block.dense) {
      const Part part("feed-forward");
      const auto feed = [this, &block, at, context, index](const Tensor& x) {
        return dropped((*block.dense)(x), at, context, 2 * uint64_t(index) + 2);
      };
      h = again ? added_again(h.sum, block.feed_forward_norm, feed) : norm_before(i + 1)(h.sum, feed(h.y));
      passed.losses.emplace_back();
      passed.statistics.emplace_back();
    } else {
      const Part part("feed-forward");
      context.layer = index;
      if (!counts_so_far.empty()) context.counts_so_far = counts_so_far[i];
      if (context.schedule && context.mode == Mode::train)
        context.compete = context.schedule->competes(index, context.step);
      Decision decision;
      LayerOutput out = (*block.experts)(again ? block.feed_forward_norm(h.sum) : h.y, context,
                                         context.decided ? &decision : nullptr);
      if (context.decided) (*context.decided)[i] = decision.pairs;
      // Not in one pass: that took up to 4 % more of the arena with the configurations in configs/.
      h.sum = add(h.sum, dropped(std::exchange(out.y, {}), at, context, 2 * uint64_t(index) + 2));
      if (!again) h.y = norm_before(i + 1)(h.sum);
      passed.losses.push_back(std::move(out.losses));
      passed.statistics.push_back(std::move(out.statistics));
    }
    if (watch) watch(index, "feed_forward", h.sum);
  }
  if (cache) cache->length += at.token.shape(0);
  passed.hidden = again ? norm_(h.sum) : h.y;
  return passed;
}

Tensor LanguageModel::logits(const Tensor& hidden) const {
  const Part part("head");
  return linear(hidden, head());
}

KeyValueCache LanguageModel::make_cache(int64_t capacity) const {
  KeyValueCache cache;
  cache.capacity = capacity;
  for (const Block& block : blocks_) {
    const Shape shape{capacity, block.attention.kv_heads, block.attention.head_width};
    cache.keys.emplace_back(shape, config_.numbers().compute, device());
    cache.values.emplace_back(shape, config_.numbers().compute, device());
  }
  return cache;
}

}  // namespace agon
