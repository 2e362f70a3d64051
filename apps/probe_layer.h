#pragma once
#include <string>
#include <string_view>

#include "apps/config.h"

namespace agon {

/// The file LAYER.toml of `agon probe`: one MoE layer without a model around it.
struct ProbeLayer {
  std::string source;         // the file's name, for messages
  int64_t width = 0;          // D
  std::string dtype = "f32";  // f64 | f32 | bf16: of the inputs and the experts
  std::string mode =
      "train";  // train | compete (train, on a step on which this layer competes) | eval | eval_noncausal
  Config
      config;  // what a layer has of it: seed, device, [moe] without placement, [moe.router], and where all came from

  void visit(OptionVisitor& v);  // the keys outside every section
  Precision numbers() const;     // `dtype` as dtypes
  RouterContext context() const;
};

/// Reads LAYER.toml as load_config reads a config: UserError naming file, line, column and key, what was found and what
/// was expected, also for what the strategy refuses.
ProbeLayer load_probe_layer(const std::string& path);

/// The same from text; `name` stands for the file.
ProbeLayer parse_probe_layer(std::string_view toml, const std::string& name);

}  // namespace agon
