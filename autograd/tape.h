#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "autograd/parameter.h"

namespace agon {

/// out = a + b, where b may be stored in another dtype than a and out.
struct Sum {
  static void cpu(const Tensor& out, const Tensor& a, const Tensor& b);
  static void cuda(const Tensor& out, const Tensor& a, const Tensor& b);
};

/// Gradients found so far, by tensor. The first contribution is adopted without a copy; later ones are added in place
/// when nobody else holds the block, so one dy may be given to several inputs.
class Gradients {
 public:
  /// Whether x depends on a parameter: its gradient is worth computing.
  bool wants(const Tensor& x) const { return entries_.contains(x.id()); }

  /// Adds dx to the gradient of x. Sizes must agree; for a parameter dx may be of the compute or the master dtype.
  void add(const Tensor& x, Tensor dx);

  /// Where an op writes the gradient of a parameter itself, without a block of its own and without a zeroing pass: the
  /// parameter's `grad`, and whether to add to it (true) or to overwrite every element (false). Only when `owns(x)`,
  /// and only once per recorded use; the caller then must not call `add` for that use.
  struct Target {
    Tensor grad;
    bool add;
  };
  bool owns(const Tensor& x) const;
  Target target(const Tensor& x);

 private:
  friend class Tape;
  struct Entry {
    Tensor gradient;                 // empty: wanted, nothing yet
    Parameter* parameter = nullptr;  // gradients go straight to it
    int uses = 0;                    // recorded uses of the parameter whose backward has not run
  };
  std::unordered_map<uint64_t, Entry> entries_;
};

/// Records every op whose inputs depend on the given parameters, on this thread, while it lives. It owns what the ops
/// saved; `backward` runs the nodes last to first and frees what each saved as it goes.
class Tape {
 public:
  using Backward = std::function<void(Gradients&, const Tensor& dy)>;
  using Ready = std::function<void(Parameter&)>;

  /// `ready(p)` is called in `backward` as soon as the last recorded use of p has run: its gradient is complete.
  explicit Tape(std::span<Parameter* const> parameters, Ready ready = {});
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// Adds ∂loss/∂p to the grad of every parameter; loss has one element. A parameter nothing depends on gets 0.
  void backward(const Tensor& loss);

  /// Treats x as something gradients are wanted of, as if it were a parameter. For tests and for probing inputs.
  void watch(const Tensor& x);
  /// The gradient of a watched tensor after `backward`; an empty Tensor when nothing depended on it.
  Tensor gradient(const Tensor& x) const;

  size_t size() const { return nodes_.size(); }  ///< nodes that wait for their backward

  /// Nothing is recorded on this thread until the end of the scope.
  class Pause {
   public:
    Pause() : paused_(std::exchange(current_, nullptr)) {}
    ~Pause() { current_ = paused_; }
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    Tape* paused_;
  };

  static Tape* current() { return current_; }
  static Tensor record(const char* name, std::initializer_list<const Tensor*> inputs, Tensor y, Backward backward);

 private:
  friend bool recording(std::initializer_list<const Tensor*> inputs);
  friend Tensor recompute(std::function<Tensor(std::span<const Tensor>)> f, std::vector<Tensor> inputs);
  struct Node {
    const char* name;
    const char* part;  // of the program (profile.h): its backward is booked there too
    uint64_t output;
    Shape shape;                       // of the output: a reshape downstream must not reach its backward
    std::vector<uint64_t> parameters;  // direct inputs that are parameters
    Backward backward;
  };
  bool would_record(std::initializer_list<const Tensor*> inputs) const;
  void push(Node node);
  void release(const std::vector<uint64_t>& parameters);
  std::vector<uint64_t> parameters_among(std::initializer_list<const Tensor*> inputs) const;

  inline static thread_local Tape* current_ = nullptr;
  std::vector<Parameter*> parameters_;
  Ready ready_;
  std::vector<Node> nodes_;
  Gradients gradients_;
  std::vector<uint64_t> watched_;
  std::vector<uint64_t>* only_uses_ = nullptr;  // inside recompute's first run: note parameters, keep no nodes
  Tape* previous_;
};

/// Notes on the current tape, if there is one, how to turn dy = ∂loss/∂y into the gradients of `inputs`. Returns y.
/// The lambda captures what it saves; it must give gradients only to tensors among `inputs`.
inline Tensor record(const char* name, std::initializer_list<const Tensor*> inputs, Tensor y, Tape::Backward backward) {
  return Tape::record(name, inputs, std::move(y), std::move(backward));
}

/// Whether an op with these inputs would be recorded now: whether work done only for the backward pass is worth doing.
bool recording(std::initializer_list<const Tensor*> inputs);

}  // namespace agon
