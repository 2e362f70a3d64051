#include "core/copy.h"

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

template <class T>
inline constexpr bool is_half = std::is_same_v<T, bf16> || std::is_same_v<T, f16>;

template <class To, class From>
To convert(From v) {
  if constexpr (is_half<From>)
    return To(float(v));
  else if constexpr (is_half<To> && !std::is_same_v<From, float>)
    return To(double(v));  // integers: exact, then one rounding
  else
    return To(v);
}

struct Copy {
  static void cpu(const Tensor& to, const Tensor& from) {
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
};

struct Fill {
  static void cpu(const Tensor& t, double value) {
    visit_any(t.dtype(), [&]<class T>() {
      const T v = convert<T>(value);
      for (T& x : t.data<T>()) x = v;
    });
  }
};

}  // namespace

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

void fill(const Tensor& t, double value) {
  if (t) run<Fill>(t.device(), t, value);
}

}  // namespace agon
