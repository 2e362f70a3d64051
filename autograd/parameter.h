#pragma once
#include <string>

#include "core/tensor.h"

namespace agon {

/// The dtypes of a model. `compute` holds activations and the weights ops read; `master` what the optimizer updates.
/// Gradients of parameters have the dtype of the master.
struct Precision {
  DType compute = DType::f32;
  DType master = DType::f32;
  static Precision f64() { return {DType::f64, DType::f64}; }
  static Precision fp32() { return {DType::f32, DType::f32}; }
  static Precision bf16() { return {DType::bf16, DType::f32}; }
};

/// Whose copies of a parameter have to agree: all ranks hold `shared` ones, an `expert` one belongs to one rank of each
/// expert-parallel group.
enum class Group { shared, expert };

/// How a parameter starts (initialise in module.h).
enum class Init { zero, one, normal };

/// A trained tensor. Move-only: the tape and the optimizer know it by address.
struct Parameter {
  std::string name;       // path below the model; set by name_parameters (module.h)
  Tensor value;           // what ops read, in the compute dtype
  Tensor master;          // what the optimizer updates; the same block as `value` when the dtypes are equal
  Tensor grad;            // f32 (f64 for f64): ∂loss/∂value; contents undefined until a tape wrote them
  bool has_grad = false;  // a tape has written `grad` since the optimizer last took it: the next one adds
  Group group = Group::shared;
  bool decays = false;  // weight decay applies (the model: to matrices, embeddings among them, not to norms and biases)
  Init init = Init::zero;
  double deviation = 0;  // for Init::normal
  int64_t first = 0;     // where its elements start in the whole parameter, of which a rank may hold a part

  Parameter() = default;
  /// Value and master are zero.
  Parameter(Shape shape, Precision precision, Device device = {});
  Parameter(Parameter&&) = default;
  Parameter& operator=(Parameter&&) = default;

  operator const Tensor&() const { return value; }
  explicit operator bool() const { return bool(value); }
  /// value = master, rounded; after the master changed.
  void refresh();
};

/// A gate, norm gain or anything else that stays in f32 whatever the model computes in (f64 under f64).
inline Precision in_master(Precision p) { return {p.master, p.master}; }

}  // namespace agon
