#include "autograd/tape.h"

#include <algorithm>

#include "core/copy.h"
#include "core/parallel.h"
#include "core/profile.h"

namespace agon {

void Sum::cpu(const Tensor& out, const Tensor& a, const Tensor& b) {
  visit_float(out.dtype(), [&]<class T>() {
    visit_float(b.dtype(), [&]<class B>() {
      const auto o = out.data<T>();
      const auto x = a.data<const T>();
      const auto y = b.data<const B>();
      using A = Accumulator<T>;
      parallel_ranges(int64_t(o.size()), 16384, [&](int64_t begin, int64_t end) {
        for (auto i = size_t(begin); i < size_t(end); ++i) o[i] = T(A(x[i]) + A(y[i]));
      });
    });
  });
}

void Gradients::add(const Tensor& x, Tensor dx) {
  const auto it = entries_.find(x.id());
  if (it == entries_.end()) return;
  check(dx.size() == x.shape().size(), "a gradient of shape ", dx.shape(), " for a tensor of shape ", x.shape());
  Entry& entry = it->second;
  if (entry.parameter) {
    const auto [grad, adds] = target(x);
    if (adds)
      run<Sum>(grad.device(), grad, grad, dx);
    else
      copy(grad, dx);
    return;
  }
  check(dx.dtype() == x.dtype(), "a gradient of ", dx.dtype(), " for a tensor of ", x.dtype(), " with shape ",
        x.shape());
  if (!entry.gradient) {
    entry.gradient = std::move(dx);
    return;
  }
  // In place only if nobody else would see it: the same dy may have been given to several tensors.
  const Tensor& so_far = entry.gradient;
  Tensor out = so_far.unique() ? so_far : Tensor(so_far.shape(), so_far.dtype(), so_far.device());
  run<Sum>(out.device(), out, so_far, dx);
  entry.gradient = out;
}

bool Gradients::owns(const Tensor& x) const {
  const auto it = entries_.find(x.id());
  return it != entries_.end() && it->second.parameter;
}

Gradients::Target Gradients::target(const Tensor& x) {
  check(owns(x), "Gradients::target of a tensor that is no parameter");
  Parameter& p = *entries_.at(x.id()).parameter;
  return {p.grad, std::exchange(p.has_grad, true)};
}

Tape::Tape(std::span<Parameter* const> parameters, Ready ready)
    : parameters_(parameters.begin(), parameters.end()), ready_(std::move(ready)), previous_(current_) {
  for (Parameter* p : parameters) gradients_.entries_[p->value.id()].parameter = p;
  current_ = this;
}

Tape::~Tape() {
  while (!nodes_.empty()) nodes_.pop_back();  // last first, so that an abandoned tape frees in the usual order
  current_ = previous_;
}

void Tape::watch(const Tensor& x) {
  gradients_.entries_[x.id()];
  watched_.push_back(x.id());
}

Tensor Tape::gradient(const Tensor& x) const {
  const auto it = gradients_.entries_.find(x.id());
  return it == gradients_.entries_.end() ? Tensor() : it->second.gradient;
}

std::vector<uint64_t> Tape::parameters_among(std::initializer_list<const Tensor*> inputs) const {
  std::vector<uint64_t> found;
  for (const Tensor* x : inputs)
    if (*x && gradients_.owns(*x)) found.push_back(x->id());
  return found;
}

void Tape::push(Node node) {
  gradients_.entries_[node.output];
  for (uint64_t id : node.parameters) ++gradients_.entries_[id].uses;
  nodes_.push_back(std::move(node));
}

bool recording(std::initializer_list<const Tensor*> inputs) {
  return Tape::current() && Tape::current()->would_record(inputs);
}

bool Tape::would_record(std::initializer_list<const Tensor*> inputs) const {
  return !only_uses_ && std::ranges::any_of(inputs, [&](const Tensor* x) { return *x && gradients_.wants(*x); });
}

Tensor Tape::record(const char* name, std::initializer_list<const Tensor*> inputs, Tensor y, Backward backward) {
  Tape* tape = current_;
  if (!tape) return y;
  if (tape->only_uses_) {
    for (uint64_t id : tape->parameters_among(inputs)) tape->only_uses_->push_back(id);
    return y;
  }
  if (tape->would_record(inputs))
    tape->push({name, Part::current(), y.id(), y.shape(), tape->parameters_among(inputs), std::move(backward)});
  return y;
}

void Tape::release(const std::vector<uint64_t>& parameters) {
  for (uint64_t id : parameters) {
    auto& entry = gradients_.entries_.at(id);
    if (--entry.uses == 0 && ready_) ready_(*entry.parameter);
  }
}

void Tape::backward(const Tensor& loss) {
  check(loss.size() == 1, "backward starts from a scalar, got shape ", loss.shape());
  check(current_ == this, "backward of a tape that is not the current one");
  Tensor one(loss.shape(), loss.dtype(), loss.device());
  fill(one, 1);
  gradients_.add(loss, std::move(one));
  while (!nodes_.empty()) {  // execution order is a topological order already
    Node node = std::move(nodes_.back());
    nodes_.pop_back();
    const auto it = gradients_.entries_.find(node.output);
    Tensor dy = it == gradients_.entries_.end() ? Tensor() : std::move(it->second.gradient);
    const bool is_watched = std::ranges::find(watched_, node.output) != watched_.end();
    if (is_watched)
      it->second.gradient = dy;
    else if (it != gradients_.entries_.end())
      gradients_.entries_.erase(it);
    if (dy) {
      const Part part(node.part);
      node.backward(gradients_, dy.reshape(node.shape));
    }
    release(node.parameters);
  }
  for (Parameter* p : parameters_)
    if (!std::exchange(p->has_grad, true)) {
      p->grad.zero();
      if (ready_) ready_(*p);
    }
}

}  // namespace agon
