#include <fmt/format.h>

#include "apps/bench_inputs.h"
#include "apps/gemm_library.h"
#include "core/parallel.h"
#include "ops/grouped_linear.h"
#include "ops/linear.h"

namespace agon {

namespace {

/// y = x w[e]ᵀ for the rows of each of `groups` groups of equal size.
struct Product {
  std::string name;  // "" or, of a layer's experts, which
  int64_t rows, in, out, groups;
};

/// One set of a product's inputs.
struct ProductSet {
  Tensor x, w, offsets;  // [rows, in], [groups, out, in] or [out, in], [groups + 1]

  ProductSet(const Product& p, DType dtype, uint64_t seed)
      : x(drawn({p.rows, p.in}, dtype, {}, 2 * seed)),
        w(drawn(p.groups > 1 ? Shape{p.groups, p.out, p.in} : Shape{p.out, p.in}, dtype, {}, 2 * seed + 1)),
        offsets(even_offsets(p.rows, p.groups, {})) {}
};
using ProductSets = std::deque<ProductSet>;

/// The sets of a product, made for the first of those measured together and shared by the others.
std::function<std::shared_ptr<ProductSets>(int64_t sets)> shared_sets(const Product& p, DType dtype) {
  const auto made = std::make_shared<std::weak_ptr<ProductSets>>();
  return [=](int64_t sets) {
    if (auto there = made->lock()) return there;
    auto all = std::make_shared<ProductSets>();
    for (int64_t i = 0; i < sets; ++i) all->emplace_back(p, dtype, uint64_t(i));
    *made = all;
    return all;
  };
}

void ours(const ProductSet& s) { s.w.shape().rank() == 2 ? linear(s.x, s.w) : grouped_linear(s.x, s.w, s.offsets); }

void theirs(const GemmLibrary& library, const Product& p, const ProductSet& s) {
  Tensor y({p.rows, p.out}, s.x.dtype());
  const int64_t rows = p.rows / p.groups;
  for (int64_t e = 0; e < p.groups; ++e) {
    const auto call = [&]<class T>(void (*product)(int64_t, int64_t, int64_t, const T*, const T*, T*)) {
      product(rows, p.out, p.in, static_cast<const T*>(s.x.address()) + e * rows * p.in,
              static_cast<const T*>(s.w.address()) + e * p.out * p.in, static_cast<T*>(y.address()) + e * rows * p.out);
    };
    if (s.x.dtype() == DType::f32)
      call(library.f32);
    else
      call(library.bf16);
  }
}

std::string shape_of(const Product& p, int threads) {
  std::string shape = p.name.empty() ? "" : p.name + ": ";
  if (p.groups > 1) shape += fmt::format("{} times ", p.groups);
  return shape +
         fmt::format("[{}, {}] x {}, {} thread{}", p.rows / p.groups, p.in, p.out, threads, threads > 1 ? "s" : "");
}

std::vector<Product> products(bool tiny) {
  if (tiny) return {{"", 8, 8, 8, 1}, {"S0 up", 12, 8, 6, 3}};
  std::vector<Product> all;
  for (const int64_t n : {256, 512, 1024, 2048}) all.push_back({"", n, n, n, 1});
  for (const LayerShape& s : kLayerShapes) {
    all.push_back({std::string(s.name) + " gate and up", s.tokens * s.k, s.width, 2 * s.hidden, s.experts});
    all.push_back({std::string(s.name) + " down", s.tokens * s.k, s.hidden, s.width, s.experts});
  }
  return all;
}

}  // namespace

BenchCases compare_cases(const BenchOptions& o) {
  std::vector<int> counts{1};
  if (threads() > 1) counts.push_back(threads());
  BenchCases cases;
  std::vector<DType> dtypes{DType::f32};
  if (std::ranges::any_of(o.libraries, [](const GemmLibrary* l) { return l->bf16 != nullptr; }))
    dtypes.push_back(DType::bf16);
  for (const Product& p : products(o.tiny))
    for (const DType dtype : dtypes)
      for (const int n : counts) {
        const double size = double(size_of(dtype));
        BenchCase c{.group = "ops", .shape = shape_of(p, n), .dtype = dtype};
        c.flops = 2 * double(p.rows) * double(p.in) * double(p.out);
        c.bytes = size * (double(p.rows * (p.in + p.out)) + double(p.groups * p.in * p.out));
        c.set_bytes = int64_t(c.bytes);
        c.threads = n;
        c.together = text(c.shape, name_of(dtype));
        const auto sets = shared_sets(p, dtype);
        const auto add = [&](const std::string& name, const std::function<void()>& begin,
                             const std::function<void(const ProductSet&)>& once) {
          c.name = "product " + name;
          c.prepare = [=](int64_t wanted) {
            begin();
            return BenchRun{[=, all = sets(wanted)](int64_t turn) { once((*all)[size_t(turn) % all->size()]); }};
          };
          cases.push_back(c);
        };
        add(
            "agon", [] {}, ours);
        for (const GemmLibrary* library : o.libraries)
          if (dtype == DType::f32 || library->bf16)
            add(
                library->name, [=] { library->set_threads(n); }, [=](const ProductSet& s) { theirs(*library, p, s); });
      }
  return cases;
}

}  // namespace agon
