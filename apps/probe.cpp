#include "apps/probe.h"

#include <cstdio>
#include <filesystem>
#include <functional>

#include "apps/safetensors.h"
#include "apps/verbs.h"
#include "autograd/tape.h"
#include "core/copy.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"

namespace agon {

namespace {

/// A copy as it is written: on the host, and never in bf16.
Tensor widened(const Tensor& t) { return converted(on_host(t), accumulator_dtype(t.dtype())); }

/// Which pairs a decision has, and their weights, as tables.
void add_decision(Tensors& out, const Decision& decision) {
  const Pairs& pairs = decision.pairs;
  const int64_t T = pairs.logits.shape(0), E = pairs.logits.shape(1);
  out["logits"] = widened(pairs.logits);
  out["scores"] = widened(pairs.scores);
  if (pairs.affinity) out["affinity"] = widened(pairs.affinity);
  const Tensor given = on_host(decision.weight), token_offsets = on_host(pairs.token_offsets),
               experts = on_host(pairs.expert);
  const Tensor selected({T, E}, DType::i32), weights({T, E}, given.dtype());
  selected.zero();
  weights.zero();
  const auto offset = token_offsets.data<const int32_t>(), expert = experts.data<const int32_t>();
  visit_accumulator(weights.dtype(), [&]<class A>() {
    for (int64_t t = 0; t < T; ++t)
      for (auto i = size_t(offset[size_t(t)]); i < size_t(offset[size_t(t + 1)]); ++i) {
        const auto at = size_t(t * E + expert[i]);
        selected.data<int32_t>()[at] = 1;
        weights.data<A>()[at] = given.data<const A>()[i];
      }
  });
  out["selected"] = selected;
  out["weights"] = weights;
}

/// Every expert's answer to every token: x [T, D] -> [T, E, D].
Tensor all_answers(const ExpertGroup& experts, const Tensor& x) {
  const int64_t T = x.shape(0), D = x.shape(1), E = experts.experts();
  const Tensor all({T, E, D}, accumulator_dtype(x.dtype()));
  for (int64_t e = 0; e < E; ++e) {
    std::vector<int32_t> offsets(size_t(E + 1), 0);
    for (int64_t i = e + 1; i <= E; ++i) offsets[size_t(i)] = int32_t(T);  // all rows are of this expert
    const Tensor answers = widened(experts(x, on_device(tensor_of(offsets), x.device())));
    visit_accumulator(all.dtype(), [&]<class A>() {
      const auto from = answers.data<const A>();
      for (int64_t t = 0; t < T; ++t) std::copy_n(from.begin() + t * D, D, all.data<A>().begin() + (t * E + e) * D);
    });
  }
  return all;
}

/// What is differentiated: a scalar made of what the layer gave.
using Objective = std::function<Tensor(const LayerOutput&)>;

/// Runs the layer once more and adds the gradient of the objective to x and to every parameter, as prefix + name.
/// Names that are taken keep what they have.
void add_gradients(Tensors& out, const std::string& prefix, const ProbeInputs& in, const RouterContext& context,
                   const Objective& objective) {
  std::vector<Parameter*> parameters;
  for (const ProbedParameter& p : in.trained) {
    p.parameter->has_grad = false;  // what an earlier objective left is overwritten, not added to
    parameters.push_back(p.parameter);
  }
  Tape tape(parameters);
  tape.watch(in.x);
  tape.backward(objective((*in.layer)(in.x, context)));
  Tensor dx = tape.gradient(in.x);
  if (!dx) {
    dx = Tensor(in.x.shape(), in.x.dtype());  // nothing depends on it
    dx.zero();
  }
  out.emplace(prefix + "x", widened(dx));
  for (const ProbedParameter& p : in.trained) out.emplace(prefix + p.name, widened(p.parameter->grad));
}

bool same_file(const std::string& a, const std::string& b) {
  std::error_code none;  // of a file that does not exist: another one
  return std::filesystem::equivalent(a, b, none);
}

}  // namespace

Tensors run_probe(const ProbeLayer& file, const Tensors& given, const std::string& source, const ProbeFlags& flags) {
  require(!flags.each_loss || given.contains("dy"), source,
          ": has no tensor 'dy', which --each-loss needs; of losses alone, give zeros");
  const Device device = file.config.use_device();
  const auto comm = make_self_communicator();
  ProbeInputs in = make_probe_inputs(file, given, source, *comm);
  move_to(*in.layer, device);
  in.x = on_device(in.x, device);
  in.dy = on_device(in.dy, device);
  RouterContext context = file.context();
  context.sequence_offsets = in.sequence_offsets;
  context.sequence_offsets_there = on_device(in.sequence_offsets, device);

  Decision decision;
  const LayerOutput values = (*in.layer)(in.x, context, &decision);
  Tensors out = in.drawn;
  add_decision(out, decision);
  out["y"] = widened(values.y);
  for (const Loss& loss : values.losses) out["loss." + loss.name] = widened(loss.value);
  if (flags.expert_outputs) out["expert_outputs"] = all_answers(in.layer->experts(), in.x);
  if (!in.dy) return out;

  const Objective task = [&](const LayerOutput& o) { return sum(multiply(in.dy, o.y)); };
  add_gradients(out, "grad.", in, context, [&](const LayerOutput& o) {
    Tensor all = task(o);
    for (const Loss& loss : o.losses) all = add(all, scale(loss.value, loss.coefficient));
    return all;
  });
  if (!flags.each_loss) return out;
  add_gradients(out, "grad.task.", in, context, task);
  for (size_t i = 0; i < values.losses.size(); ++i)
    add_gradients(out, "grad.loss." + values.losses[i].name + '.', in, context,
                  [&](const LayerOutput& o) { return o.losses[i].value; });
  for (const Loss& loss : values.losses) {
    const auto also = [&](const std::string& input) {
      out.emplace("grad." + loss.name + '.' + input, out.at("grad.loss." + loss.name + '.' + input));
    };
    also("x");
    for (const ProbedParameter& p : in.trained) also(p.name);
  }
  return out;
}

int probe(const ProbeArguments& arguments) {
  for (const std::string& input : {arguments.layer, arguments.in})
    require(!same_file(input, arguments.out), arguments.out, ": would replace what the probe reads; name another file");
  const ProbeLayer layer = load_probe_layer(arguments.layer);
  Tensors given;
  {
    const SafetensorsFile file = SafetensorsFile::open(arguments.in);
    for (const TensorEntry& entry : file.tensors()) given.emplace(entry.name, file.load(entry.name));
  }
  const Tensors out = run_probe(layer, given, arguments.in, {arguments.each_loss, arguments.expert_outputs});
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : out) tensors.push_back({name, tensor});
  write_safetensors(arguments.out, tensors);
  const Tensor& selected = out.at("selected");
  std::printf("%s: %zu tensors; %lld tokens, %lld experts, %.0f pairs\n", arguments.out.c_str(), tensors.size(),
              static_cast<long long>(selected.shape(0)), static_cast<long long>(selected.shape(1)),
              sum(converted(selected, DType::f64)).item());
  return 0;
}

}  // namespace agon
