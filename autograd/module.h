#pragma once
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "autograd/parameter.h"
#include "core/random.h"

namespace agon {

/// A module is any struct that lists its parts once:
///   void visit(auto&& v) { v("norm", norm); v("blocks", blocks); }
/// where a part is a Parameter, a module, a container of modules, or a pointer to one (null: absent). A part named ""
/// adds nothing to the path. Named state (a Tensor that is saved and restored but not trained) is a part as well.

/// What a virtual `visit` takes: accepts any callable that handles both kinds of part.
class Visitor {
 public:
  template <class F>
  Visitor(F f) : parameter_(f), state_(f) {}
  void operator()(const std::string& name, Parameter& p) const { parameter_(name, p); }
  void operator()(const std::string& name, Tensor& state) const { state_(name, state); }

 private:
  std::function<void(const std::string&, Parameter&)> parameter_;
  std::function<void(const std::string&, Tensor&)> state_;
};

/// Calls f(path, part) for every Parameter and every state Tensor below `m`; absent ones (empty) are left out.
template <class M, class F>
void each_part(M& m, F&& f, const std::string& path = "") {
  using T = std::remove_reference_t<M>;
  if constexpr (std::is_same_v<T, Parameter> || std::is_same_v<T, Tensor>) {
    if (m) f(path, m);
  } else if constexpr (requires {
                         *m;
                         static_cast<bool>(m);
                       }) {
    if (m) each_part(*m, f, path);
  } else if constexpr (requires {
                         m.begin();
                         m.end();
                       }) {
    int i = 0;
    for (auto& part : m) each_part(part, f, (path.empty() ? "" : path + ".") + std::to_string(i++));
  } else {
    m.visit([&](const std::string& name, auto& part) {
      each_part(part, f, path.empty() ? name : name.empty() ? path : path + "." + name);
    });
  }
}

template <class M, class F>
void each_parameter(M& m, F&& f, const std::string& path = "") {
  each_part(
      m,
      [&](const std::string& name, auto& part) {
        if constexpr (std::is_same_v<std::remove_reference_t<decltype(part)>, Parameter>) f(name, part);
      },
      path);
}

template <class M, class F>
void each_state(M& m, F&& f, const std::string& path = "") {
  each_part(
      m,
      [&](const std::string& name, auto& part) {
        if constexpr (std::is_same_v<std::remove_reference_t<decltype(part)>, Tensor>) f(name, part);
      },
      path);
}

template <class M>
std::vector<Parameter*> parameters(M& m) {
  std::vector<Parameter*> all;
  each_parameter(m, [&](const std::string&, Parameter& p) { all.push_back(&p); });
  return all;
}

/// Sets Parameter::name to its path below `m`.
template <class M>
void name_parameters(M& m) {
  each_parameter(m, [](const std::string& path, Parameter& p) { p.name = path; });
}

/// Moves every parameter and state below `m` to a device: new tensors of the same values; gradients are not kept.
void move_part(Parameter& p, Device device);
void move_part(Tensor& state, Device device);
template <class M>
void move_to(M& m, Device device) {
  each_part(m, [&](const std::string&, auto& part) { move_part(part, device); });
}

/// Draws master and value as `init` and `deviation` say. Element i is draw number first + i of (seed, path): adding a
/// parameter changes no other, and ranks that hold parts of one draw what a single rank would.
void initialise(Parameter& p, const std::string& path, uint64_t seed);

template <class M>
void initialise(M& m, uint64_t seed) {
  each_parameter(m, [&](const std::string& path, Parameter& p) { initialise(p, path, seed); });
}

}  // namespace agon
