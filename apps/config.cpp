#include "apps/config.h"

#include <algorithm>

#include "apps/nearest.h"
#include "apps/utf8.h"
#include "core/gpu.h"
#include "distributed/who.h"

namespace agon {

namespace {

// Bounds no model reaches; they keep products of a few sizes within 64 bits.
constexpr double kMany = 1e6, kSteps = 1e12;

}  // namespace

void ModelOptions::visit(OptionVisitor& v) {
  v("layers", layers, Range::within(1, 10'000), "decoder blocks");
  v("width", width, Range::within(1, kMany), "numbers per token between blocks");
  v("heads", heads, Range::within(1, 10'000), "attention heads");
  v("kv_heads", kv_heads, Range::within(0, 10'000),
    "heads of keys and values, shared by groups of heads; 0: as many as heads");
  v("head_width", head_width, Range::within(0, kMany), "numbers per head; 0: width / heads");
  v("feed_forward", feed_forward, Range::within(0, kMany),
    "inner width of the feed-forward; 0: 8/3 width (swiglu) or 4 width, rounded up to a multiple of 8");
  v("activation", activation, {"swiglu", "gelu", "relu"}, "of the dense feed-forwards");
  v("norm", norm, {"rms", "layer"}, "normalisation before attention, feed-forward and head");
  v("norm_epsilon", norm_epsilon, Range::above(0), "added to the variance");
  v("position", position, {"rope", "learned"}, "how a token knows its place");
  v("rope_theta", rope_theta, Range::above(0), "base of the rotation's wave lengths");
  v("qk_norm", qk_norm, "normalise queries and keys per head");
  v("bias", bias, "biases in linear layers and layer norms");
  v("tied", tied, "the head shares the embedding's weights");
  v("dropout", dropout, Range::from_below(0, 1),
    "share of numbers dropped after embedding, attention and feed-forward");
  v("init", init, Range::within(0, 1000), "standard deviation of every matrix's initial weights");
  v("scaled_init", scaled_init, "divide init by sqrt(2 layers) for projections into the residual stream, as GPT-2");
  v("sequence", sequence, Range::within(1, 1 << 24), "context length in tokens");
  v("recompute", recompute, "run attention and dense feed-forwards again in the backward pass: less memory, more time");
}

void MoePlacement::visit(OptionVisitor& v) {
  v("every", every, Range::within(1, 10'000), "one block in so many has experts, the last of each");
  v("first_dense", first_dense, Range::within(0, 10'000), "so many blocks at the start have no experts");
}

void TrainOptions::visit(OptionVisitor& v) {
  v("steps", steps, Range::within(0, kSteps), "optimizer steps");
  v("batch", batch, Range::within(1, kMany), "sequences per optimizer step, over all ranks");
  v("micro_batch", micro_batch, Range::within(0, kMany), "sequences at a time, a divisor of batch; 0: the whole batch");
  v("out", out, {}, "run directory");
  v("eval_every", eval_every, Range::within(0, kSteps), "steps between evaluations; 0: only at the end");
  v("eval_tokens", eval_tokens, Range::within(0, kSteps), "validation tokens per evaluation; 0: all");
  v("sample_every", sample_every, Range::within(0, kSteps), "steps between samples of text; 0: never");
  v("sample_tokens", sample_tokens, Range::within(1, kMany), "length of a sample");
  v("sample_prompt", sample_prompt, {}, "what a sample continues");
  v("checkpoint_every", checkpoint_every, Range::within(0, kSteps), "steps between checkpoints; 0: only at the end");
  v("keep", keep, Range::within(2, kMany), "newest checkpoints kept, besides the best");
}

void OptimizerOptions::visit(OptionVisitor& v) {
  v("rate", rate, Range::within(0, 1000), "learning rate after the warm-up");
  v("final_rate", final_rate, Range::within(0, 1000), "learning rate at the end");
  v("schedule", schedule, {"cosine", "linear", "wsd", "constant"}, "how the rate falls; wsd: warm-up, stable, decay");
  v("warm_up", warm_up, Range::within(0, kSteps), "steps of linear warm-up");
  v("decay_share", decay_share, Range::within(0, 1), "wsd: share of the steps in which the rate falls");
  v("beta1", beta1, Range::from_below(0, 1), "AdamW: memory of the mean gradient");
  v("beta2", beta2, Range::from_below(0, 1), "AdamW: memory of the mean squared gradient");
  v("epsilon", epsilon, Range::above(0), "AdamW: added to the root of the mean square");
  v("weight_decay", weight_decay, Range::within(0, 1000), "AdamW: decoupled decay, on matrices only");
  v("clip", clip, Range::at_least(0), "largest global gradient norm; 0: no clipping");
}

void ParallelOptions::visit(OptionVisitor& v) {
  v("expert", expert, Range::within(1, 10'000), "ranks the experts are spread over");
  v("backend", backend, {"auto", "self", "mpi", "nccl"}, "what ranks exchange through; auto: what the launcher offers");
  v("shard_optimizer", shard_optimizer, "each rank keeps the optimizer's moments of a part of the parameters");
  v("exchange", exchange, {"exact", "bounded"}, "rows from rank to rank: as many as there are, or a fixed number");
  v("exchange_bound", exchange_bound, Range::above(0), "bounded: rows from rank to rank, over those of even routing");
  v("exchange_dtype", exchange_dtype, {"same", "bf16"}, "of rows on their way between ranks");
  v("exchange_own", exchange_own, "rows of the own rank take the way of the others': a test of what carries them");
  v("deadline_s", deadline_s, Range::above(0), "a rank that keeps the others waiting longer ends the job, seconds");
  v("bucket_mib", bucket_mib, Range::above(0), "gradients are summed over ranks so much at a time, MiB");
}

ExchangeOptions ParallelOptions::rows() const {
  return {.bounded = exchange == "bounded",
          .bound = exchange_bound,
          .bf16 = exchange_dtype == "bf16",
          .own_too = exchange_own};
}

void LogOptions::visit(OptionVisitor& v) {
  v("every", every, Range::within(1, kSteps), "steps between progress lines when the output is no terminal");
  v("jsonl_every", jsonl_every, Range::within(1, kSteps), "steps between lines of log.jsonl");
  v("format", format, {"auto", "live", "plain", "none"}, "progress: auto is live on a terminal and plain elsewhere");
}

void Config::visit_top(OptionVisitor& v) {
  v("seed", seed, Range::at_least(0), "of weights, data order and every other draw");
  v("device", device, {}, "where to compute: cpu, cuda (the first GPU) or cuda:N (GPU N, counted from 0)");
  v("threads", threads, Range::within(0, 4096), "threads on the CPU; 0: one per core");
  v("precision", precision, {"f64", "fp32", "bf16"},
    "of weights and activations; f64 on the CPU only; accumulation is never below fp32");
  v("tf32", tf32, "let a GPU round what it multiplies in fp32 to TF32: faster, 10 bits of fraction");
}

Precision Config::numbers() const {
  if (precision == "f64") return Precision::f64();
  return precision == "bf16" ? Precision::bf16() : Precision::fp32();
}

Device Config::parsed_device() const {
  if (device == "cpu") return {};
  if (device == "cuda") return {Device::cuda, who_am_i().local_rank};  // those of a machine, one for each of its ranks
  const std::string prefix = "cuda:", number = device.starts_with(prefix) ? device.substr(prefix.size()) : "";
  require(
      !number.empty() && number.size() <= 3 && std::ranges::all_of(number, [](char c) { return c >= '0' && c <= '9'; }),
      named("device"), ": \"", printable(device), "\", expected cpu, cuda or cuda:N");
  return {Device::cuda, std::stoi(number)};
}

Device Config::use_device() const {
  const Device parsed = parsed_device();
  require(parsed.kind == Device::cpu || kHasCuda, named("device"), ": \"", device,
          "\", but this program was built without CUDA; expected \"cpu\"");
  agon::use_device(parsed);
  set_tf32(tf32);
  return parsed;
}

std::string Config::named(const std::string& key) const {
  const auto found = origin.find(key);
  return found == origin.end() ? key : key + " (" + found->second + ")";
}

RouterChoice router_named(const std::string& strategy) {
  const auto found = routers().find(strategy);
  std::vector<std::string> names;
  for (const auto& [name, make] : routers()) names.push_back(name);
  require(found != routers().end(), "unknown strategy \"", strategy, '"', suggestion(strategy, names));
  return {strategy, found->second()};
}

const RouterChoice& MoeConfig::router_of(int64_t block) const {
  const auto found = layers.find(block);
  return found == layers.end() ? router : found->second;
}

bool MoeConfig::has_experts(int64_t block) const {
  return enabled && block >= placement.first_dense && (block + 1) % placement.every == 0;
}

}  // namespace agon
