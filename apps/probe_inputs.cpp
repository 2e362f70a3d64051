#include "apps/probe_inputs.h"

#include <algorithm>
#include <cmath>

#include "apps/nearest.h"
#include "apps/safetensors_header.h"
#include "core/copy.h"
#include "moe/thresholds.h"

namespace agon {

namespace {

constexpr double kDeviation = 0.02;  // of drawn matrices: ModelOptions::init

/// The name in a probe's files of the part of a layer at `path`. What a router calls its gate is its weight there.
std::string name_of_part(const std::string& path) { return path == "router.gate" ? "router.weight" : path; }

/// A state of the layer that may be given.
struct ProbedState {
  std::string name;
  Tensor tensor;
};

bool has_nan(const Tensor& t) {
  return visit_accumulator(
      t.dtype(), [&]<class T>() { return std::ranges::any_of(t.data<const T>(), [](T v) { return std::isnan(v); }); });
}

/// The experts' width by the first of their tensors that has the rank to tell; 0 where none does.
int64_t given_expert_width(const Tensors& given, Activation activation) {
  const auto extent = [&](const char* name, int rank, int i) -> int64_t {
    const auto found = given.find(name);
    return found == given.end() || found->second.shape().rank() != rank ? 0 : found->second.shape(i);
  };
  const bool gated = activation == Activation::swiglu;
  const int64_t before = width_before(activation, 1);
  if (const int64_t F = extent("experts.down", 3, 2)) return F;
  if (const int64_t n = extent(gated ? "experts.gate_up" : "experts.up", 3, 1)) return n / before;
  return extent("experts.up_bias", 2, 1) / before;
}

/// Collects what is wrong with the tensors given, so that one message has all of it.
class Checker {
 public:
  Checker(const Tensors& given, std::string source) : given_(given), source_(std::move(source)) {}

  /// Notes a fault unless `name` is absent or holds floats of this shape. tokens: the first extent may be any, T.
  void floats(const std::string& name, const Shape& shape, bool tokens = false) {
    const auto found = given_.find(name);
    if (found == given_.end()) return;
    const Tensor& t = found->second;
    const bool shaped = tokens ? t.shape().rank() == 2 && t.shape(1) == shape[1] : t.shape() == shape;
    if (shaped && (is_float(t.dtype()) || t.dtype() == DType::f16)) return;
    fault(name, t, text("floats of ", tokens ? text("[T, ", shape[1], "]") : text(shape)));
  }
  void integers(const std::string& name) {
    const auto found = given_.find(name);
    if (found == given_.end()) return;
    const Tensor& t = found->second;
    if (t.dtype() != DType::i32 || t.shape().rank() != 1 || t.size() == 0)
      fault(name, t, "i32 of [B], at least one sequence");
  }
  /// Throws when there was any fault; `why` says what the shapes follow from.
  void finish(const std::string& why) const { require(faults_.empty(), source_, ": ", joined(faults_, "; "), why); }

 private:
  void fault(const std::string& name, const Tensor& t, const std::string& expected) {
    faults_.push_back(text("tensor ", in_quotes(name), " is ", t.dtype(), ' ', t.shape(), ", expected ", expected));
  }

  const Tensors& given_;
  std::string source_;
  std::vector<std::string> faults_;
};

Tensor offsets_of(const Tensor& lengths, int64_t tokens, const std::string& source) {
  std::vector<int32_t> offsets{0};
  int64_t sum = 0;
  for (const int32_t n : lengths.data<const int32_t>()) {
    require(n >= 0, source, ": tensor 'sequence_lengths' has the length ", n, ", expected at least 0");
    sum += n;
    offsets.push_back(int32_t(std::min(sum, tokens)));
  }
  require(sum == tokens, source, ": tensor 'sequence_lengths' makes ", sum, " tokens, found ", tokens, " in 'x'");
  return tensor_of(offsets);
}

/// How the message about a name ends that this layer has no place for: the option it belongs to, or the nearest name.
std::string hint_for(const std::string& name, const std::vector<std::string>& known) {
  const bool network = name.starts_with("experts.") || name.starts_with("shared.");
  const std::string part = network ? name.substr(name.find('.') + 1) : "";
  const bool has_shared = std::ranges::any_of(known, [](const std::string& n) { return n.starts_with("shared."); });
  if (name == "shared_gate") return " without moe.shared_gate = true";
  if (name.starts_with("shared.") && !has_shared) return " without moe.shared_experts";
  if (part == "up_bias" || part == "down_bias") return " without moe.bias = true";
  if (part == "up") return " with moe.activation = \"swiglu\": there it is gate_up";
  if (part == "gate_up") return " without moe.activation = \"swiglu\": there it is up";
  return suggestion(name, known);
}

void check_names(const Tensors& given, const ProbeInputs& in, const std::vector<ProbedState>& states,
                 const std::string& source) {
  std::vector<std::string> known{"x", "dy", "sequence_lengths"};
  for (const ProbedParameter& p : in.trained) known.push_back(p.name);
  for (const ProbedState& s : states) known.push_back(s.name);
  for (const auto& [name, t] : given)
    require(std::ranges::count(known, name), source, ": found tensor ", in_quotes(name), " of ", t.dtype(), ' ',
            t.shape(), ", which this layer has no place for", hint_for(name, known));
}

/// Fills what the layer keeps: with what was given, else as training starts.
void fill_layer(ProbeInputs& in, const std::vector<ProbedState>& states, const Tensors& given, int64_t seed) {
  initialise(*in.layer, uint64_t(seed));
  for (const auto& [name, p] : in.trained) {
    const auto found = given.find(name);
    if (found == given.end()) {
      in.drawn.emplace(name, converted(p->value, accumulator_dtype(p->value.dtype())));
      continue;
    }
    copy(p->value, found->second);
    if (p->master.address() != p->value.address()) copy(p->master, p->value);
  }
  for (const auto& [name, tensor] : states) {
    if (const auto found = given.find(name); found != given.end())
      copy(tensor, found->second);
    else if (!has_nan(tensor))  // NaN: thresholds nobody has set
      in.drawn.emplace(name, clone(tensor));
  }
}

/// Refuses a decision by thresholds where there are none. What never is causal says so itself.
void check_thresholds(const ProbeLayer& file, MoeLayer& layer, const Tensors& given, const std::string& source) {
  const Thresholds* const thresholds = layer.router().thresholds();
  const bool causal = file.context().mode == Mode::eval && file.config.moe.router.options->causal();
  if (!causal || !thresholds || thresholds->known()) return;
  require(!given.contains("router.threshold"), source, ": tensor 'router.threshold' has NaN in it, expected numbers");
  throw UserError(text(source, ": has no tensor 'router.threshold', expected floats of ", thresholds->value.shape(),
                       ": without seeing later tokens the strategy \"", file.config.moe.router.strategy,
                       "\" chooses by thresholds; ", file.config.named("mode"), " is \"eval\""));
}

}  // namespace

ProbeInputs make_probe_inputs(const ProbeLayer& file, const Tensors& given, const std::string& source,
                              Communicator& comm) {
  const Config& c = file.config;
  MoeOptions options = c.moe.layer;
  if (options.expert_width == 0) options.expert_width = given_expert_width(given, activation_named(options.activation));
  const bool has_width = options.expert_width > 0;
  if (!has_width) options.expert_width = 1;  // until the names are checked: a wrong one is the likelier mistake

  ProbeInputs in;
  in.layer = std::make_unique<MoeLayer>(options, *c.moe.router.options, file.width, file.numbers(),
                                        MoeInit{kDeviation, kDeviation, kDeviation}, comm);
  std::vector<ProbedState> states;
  each_parameter(*in.layer, [&](const std::string& path, Parameter& p) {
    in.trained.push_back({name_of_part(path), &p});
  });
  each_state(*in.layer, [&](const std::string& path, Tensor& t) {
    if (t.dtype() == accumulator_dtype(file.numbers().compute)) states.push_back({path, t});
  });
  check_names(given, in, states, source);
  require(has_width, c.named("moe.expert_width"), ": not given, and ", source,
          " has no tensors of experts to take it from; expected an integer >= 1");
  require(given.contains("x"), source, ": has no tensor 'x', expected floats of [T, ", file.width, "]");

  const Tensor& x = given.at("x");
  const int64_t T = x.shape().rank() == 0 ? 0 : x.shape(0);
  Checker checker(given, source);
  checker.floats("x", {T, file.width}, true);
  checker.floats("dy", {T, file.width});
  checker.integers("sequence_lengths");
  for (const ProbedParameter& p : in.trained) checker.floats(p.name, p.parameter->value.shape());
  for (const ProbedState& s : states) checker.floats(s.name, s.tensor.shape());
  checker.finish(text("; by ", file.source, ": width ", file.width, ", experts ", options.experts, ", expert_width ",
                      options.expert_width));

  fill_layer(in, states, given, c.seed);
  check_thresholds(file, *in.layer, given, source);
  in.x = converted(x, file.numbers().compute);
  if (given.contains("dy")) in.dy = converted(given.at("dy"), file.numbers().compute);
  if (given.contains("sequence_lengths")) in.sequence_offsets = offsets_of(given.at("sequence_lengths"), T, source);
  return in;
}

}  // namespace agon
