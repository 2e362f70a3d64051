#pragma once
#include "apps/probe_inputs.h"

namespace agon {

struct ProbeFlags {
  bool each_loss = false;       // gradients of the task and of each loss by itself too
  bool expert_outputs = false;  // every expert's answer to every token too
};

/// Runs the layer of a file on the tensors given and returns, in f32 (f64 for a layer of f64; `selected` i32):
///   logits, scores, selected (0 or 1), weights (0 where not selected)   [T, E]; affinity where the experts competed
///   y                                                                   [T, D]
///   loss.NAME                                                           [1], without its coefficient
///   grad.INPUT of <dy, y> + sum of coefficient * loss, of x and every parameter, where dy is given
///   what was drawn, under its own name
/// each_loss: grad.task.INPUT of <dy, y>, grad.loss.NAME.INPUT of the loss without its coefficient, which is also
/// called grad.NAME.INPUT unless that is the name of something else. expert_outputs: expert_outputs [T, E, D]. Errors:
/// those of make_probe_inputs, and the router's own.
Tensors run_probe(const ProbeLayer& file, const Tensors& given, const std::string& source,
                  const ProbeFlags& flags = {});

}  // namespace agon
