#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/probe_layer.h"
#include "moe/layer.h"

namespace agon {

/// Tensors by the names of a probe's files.
using Tensors = std::map<std::string, Tensor>;

/// A parameter of the layer under its name in a probe's files: "router.weight", "experts.gate_up", "shared.down", ...
struct ProbedParameter {
  std::string name;
  Parameter* parameter;
};

/// A layer and what it works on: what was given, and the rest drawn from the seed.
struct ProbeInputs {
  std::unique_ptr<MoeLayer> layer;
  std::vector<ProbedParameter> trained;
  Tensors drawn;            // parameters and state that were not given, as the layer has them: f32 (f64)
  Tensor x;                 // [T, D], dtype of the layer
  Tensor dy;                // likewise; empty where not given
  Tensor sequence_offsets;  // [B+1] i32; empty where no lengths were given
};

/// Makes the layer that the file describes and fills it: floats of any dtype are converted, rounded once; matrices that
/// are missing are normal draws of deviation 0.02 from the seed, biases and state start as in training. The width of
/// the experts comes from their tensors where the file does not say it. UserError beginning with `source` (where the
/// tensors come from) for unknown names, with the nearest known one; wrong shapes and dtypes, with what was found and
/// what was expected; no x; sequence_lengths that do not make T tokens; no thresholds where the mode needs them.
ProbeInputs make_probe_inputs(const ProbeLayer& file, const Tensors& given, const std::string& source,
                              Communicator& comm);

}  // namespace agon
