#include "core/copy.h"

#include <atomic>
#include <cstring>

#include "core/parallel.h"

namespace agon {

namespace {

/// Calls f.template operator()<T>() with the C++ type behind any dtype.
template <class F>
void visit_any(DType t, F&& f) {
  switch (t) {
    case DType::f32:
      return f.template operator()<float>();
    case DType::f64:
      return f.template operator()<double>();
    case DType::bf16:
      return f.template operator()<bf16>();
    case DType::f16:
      return f.template operator()<f16>();
    case DType::i32:
      return f.template operator()<int32_t>();
    case DType::u8:
      return f.template operator()<uint8_t>();
  }
}

std::atomic<int64_t> crossings_to_device = 0, crossings_to_host = 0;

}  // namespace

Crossings crossings() { return {crossings_to_device, crossings_to_host}; }
void count_crossing(bool to_device) { ++(to_device ? crossings_to_device : crossings_to_host); }

void Copy::cpu(const Tensor& to, const Tensor& from) {
  if (to.dtype() == from.dtype()) {
    if (from.size()) std::memmove(const_cast<void*>(to.address()), from.address(), size_t(from.bytes()));
    return;
  }
  visit_any(to.dtype(), [&]<class To>() {
    visit_any(from.dtype(), [&]<class From>() {
      const auto y = to.data<To>();
      const auto x = from.data<const From>();
      parallel_ranges(int64_t(x.size()), 1 << 15, [&](int64_t begin, int64_t end) {
        for (auto i = size_t(begin); i < size_t(end); ++i) y[i] = convert<To>(x[i]);
      });
    });
  });
}

void Fill::cpu(const Tensor& t, double value) {
  visit_any(t.dtype(), [&]<class T>() {
    const T v = convert<T>(value);
    for (T& x : t.data<T>()) x = v;
  });
}

void FillSteps::cpu(const Tensor& t, int64_t first, int64_t step) {
  for (int64_t i = 0; int32_t & v : t.data<int32_t>()) v = int32_t(first + i++ * step);
}

void copy(const Tensor& to, const Tensor& from) {
  check(to.size() == from.size(), "copy of ", from.shape(), " into ", to.shape());
  run<Copy>(to.device().kind == Device::cpu ? from.device() : to.device(), to, from);
}

Tensor converted(const Tensor& from, DType dtype) {
  Tensor to(from.shape(), dtype, from.device());
  copy(to, from);
  return to;
}

Tensor clone(const Tensor& from) { return converted(from, from.dtype()); }

Tensor on_device(const Tensor& from, Device device) {
  if (!from || from.device() == device) return from;
  Tensor to(from.shape(), from.dtype(), device);
  copy(to, from);
  return to;
}

void fill(const Tensor& t, double value) {
  if (t) run<Fill>(t.device(), t, value);
}

void fill_steps(const Tensor& t, int64_t first, int64_t step) { run<FillSteps>(t.device(), t, first, step); }

}  // namespace agon
