#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/data_options.h"
#include "core/device.h"
#include "core/options.h"
#include "moe/layer.h"
#include "moe/router.h"

namespace agon {

/// [model]: a decoder-only transformer, pre-norm. The defaults are a Mixtral-like block; `norm = "layer"`,
/// `position = "learned"`, `activation = "gelu"`, `bias = true`, `tied = true` make nanoGPT's GPT.
struct ModelOptions {
  int64_t layers = 4;
  int64_t width = 128;
  int64_t heads = 4;
  int64_t kv_heads = 0;      // 0: as many as heads
  int64_t head_width = 0;    // 0: width / heads
  int64_t feed_forward = 0;  // 0: 8/3 width for swiglu, 4 width otherwise, rounded up to a multiple of 8
  std::string activation = "swiglu";
  std::string norm = "rms";  // rms | layer
  double norm_epsilon = 1e-5;
  std::string position = "rope";  // rope | learned
  double rope_theta = 10000;
  bool qk_norm = false;
  bool bias = false;  // in linear layers and layer norms
  bool tied = false;  // head = embedding
  double dropout = 0;
  double init = 0.02;       // standard deviation of every matrix's initial weights
  bool scaled_init = true;  // projections back into the residual stream: init / sqrt(2 layers), as GPT-2
  int64_t sequence = 128;   // context length
  bool recompute = false;   // attention and dense feed-forwards run again in the backward pass

  /// `feed_forward`, or its default.
  int64_t feed_forward_width() const {
    const int64_t n = feed_forward ? feed_forward : activation == "swiglu" ? 8 * width / 3 : 4 * width;
    return feed_forward ? n : (n + 7) / 8 * 8;
  }

  void visit(OptionVisitor& v);
};

/// [moe] beyond what one layer needs (moe/layer.h): which blocks have experts.
struct MoePlacement {
  int64_t every = 1;        // one block in so many has experts, the last of each
  int64_t first_dense = 0;  // so many blocks at the start have none

  void visit(OptionVisitor& v);
};

/// [moe.router], or the override of one layer in [[moe.layer]]: a strategy and its options.
struct RouterChoice {
  std::string strategy = "token_choice";
  std::shared_ptr<RouterOptions> options;  // shared by copies of a Config: not to be changed after loading
};

/// A strategy with its default options. Throws UserError naming the nearest strategy when there is none of that name.
RouterChoice router_named(const std::string& strategy);

struct MoeConfig {
  bool enabled = false;  // whether the file has a section [moe]: without one every block is dense
  MoeOptions layer;
  MoePlacement placement;
  RouterChoice router;
  std::map<int64_t, RouterChoice> layers;  // [[moe.layer]], by index of the block

  const RouterChoice& router_of(int64_t block) const;
  bool has_experts(int64_t block) const;  // block i: i >= first_dense, and i + 1 is a multiple of `every`
};

/// [train]
struct TrainOptions {
  int64_t steps = 1000;
  int64_t batch = 8;        // sequences per optimizer step, over all ranks
  int64_t micro_batch = 0;  // sequences at a time; 0: the whole batch
  std::string out = "runs/agon";
  int64_t eval_every = 100;  // 0: only at the end
  int64_t eval_tokens = 0;   // 0: the whole validation part
  int64_t sample_every = 0;  // 0: never
  int64_t sample_tokens = 200;
  std::string sample_prompt = "";
  int64_t checkpoint_every = 0;  // 0: only at the end
  int64_t keep = 2;              // newest checkpoints kept, besides the best

  void visit(OptionVisitor& v);
};

/// [optimizer]: AdamW and its schedule.
struct OptimizerOptions {
  double rate = 1e-3;
  double final_rate = 1e-4;         // at the end of the schedule
  std::string schedule = "cosine";  // cosine | linear | wsd (warm-up, stable, decay) | constant
  int64_t warm_up = 100;            // steps
  double decay_share = 0.2;         // wsd: the share of the steps that decays
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0.1;  // on matrices only
  double clip = 1;            // global gradient norm; 0: none

  void visit(OptionVisitor& v);
};

/// [parallel]
struct ParallelOptions {
  int64_t expert = 1;                   // ranks the experts are spread over
  std::string backend = "auto";         // auto | self | mpi | nccl
  bool shard_optimizer = false;         // each rank holds a part of the moments
  std::string exchange = "exact";       // exact | bounded
  double exchange_bound = 2;            // bounded: rows from rank to rank, over what even routing would send
  std::string exchange_dtype = "same";  // same | bf16
  bool exchange_own = false;            // rows of the own rank travel too, for tests
  double deadline_s = 60;               // a rank that does not come within it ends the job
  double bucket_mib = 8;                // gradients are summed over ranks so much at a time

  void visit(OptionVisitor& v);
  ExchangeOptions rows() const;  // how a layer's rows travel
};

/// [log]
struct LogOptions {
  int64_t every = 10;           // steps between progress lines when the output is no terminal
  int64_t jsonl_every = 1;      // steps between lines of log.jsonl
  std::string format = "auto";  // auto | live | plain | none

  void visit(OptionVisitor& v);
};

struct Config {
  int64_t seed = 1;
  std::string device = "cpu";      // cpu | cuda | cuda:N
  int64_t threads = 0;             // 0: one per core
  std::string precision = "fp32";  // f64 | fp32 | bf16
  bool tf32 = false;
  DataOptions data;
  ModelOptions model;
  MoeConfig moe;
  TrainOptions train;
  OptimizerOptions optimizer;
  ParallelOptions parallel;
  LogOptions log;
  std::map<std::string, std::string> origin;  // of keys that were given, as "model.width": "FILE:LINE" | "command line"

  void visit_top(OptionVisitor& v);  // the keys outside every section
  Precision numbers() const;         // `precision` as dtypes
  /// `device` as a Device, whether there is one or not.
  Device parsed_device() const;
  /// Makes it this thread's (core/gpu.h). UserError where this build, this machine or its driver cannot.
  Device use_device() const;
  /// Sequences that a micro-batch must hold a multiple of: the least common multiple of the layers' routing groups.
  int64_t routing_group() const;
  /// The layers whose experts compete, by index of the block.
  std::map<int, CompetitionRate> competing_layers() const;

  /// What is allowed and probably not meant, each once.
  std::vector<std::string> warnings() const;

  /// Throws UserError when options contradict each other: k > experts, heads that do not divide, ...
  void validate() const;
  /// The part of it that concerns a layer with experts by itself, whatever the model around it.
  void validate_layer() const;
  /// "model.width (FILE:LINE)", for messages; the key alone when it has its default.
  std::string named(const std::string& key) const;
};

}  // namespace agon
