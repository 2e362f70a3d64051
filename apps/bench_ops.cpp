#include <fmt/format.h>

#include "apps/bench_op.h"
#include "moe/dispatch.h"
#include "ops/activation.h"
#include "ops/adamw.h"
#include "ops/attention.h"
#include "ops/grouped_linear.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/linear_cross_entropy.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "ops/softmax.h"
#include "ops/swiglu.h"

namespace agon {

namespace {

struct AdamWSet {
  OpSet set;
  Moments moments;
  AdamW::Found found;
  AdamW::Table table = {};

  AdamWSet(int64_t n, const BenchOptions& o, uint64_t seed)
      : set({OpInput{{n}, true, o.dtype}}, o.device, seed),
        moments{Tensor({n}, DType::f32, o.device), Tensor({n}, DType::f32, o.device)},
        found{Tensor({1}, DType::f64, o.device)} {
    fill(found.square_sum, 1);
    copy(set.pointers[0]->grad, drawn({n}, DType::f32, o.device, 50));
    moments.first.zero();
    moments.second.zero();
  }
};

void add_products(BenchCases& cases, const BenchOptions& o, bool gpu) {
  const DType t = o.dtype;
  const double size = double(size_of(t));
  struct Product {
    int64_t rows, in, out, groups;  // groups 0: one matrix
    bool router = false;            // an f32 matrix, whatever the rows are
  };
  const std::vector<Product> products =
      o.tiny ? std::vector<Product>{{8, 8, 8, 0}, {8, 8, 3, 0, true}, {12, 8, 8, 3}}
      : gpu  ? std::vector<Product>{{8192, 4096, 4096, 0},     {16384, 768, 3072, 0},  {32768, 2048, 2048, 0},
                                    {16384, 768, 64, 0, true}, {16384, 768, 3072, 16}, {32768, 2048, 2048, 32},
                                    {65536, 768, 768, 64}}
             : std::vector<Product>{{1024, 1024, 1024, 0}, {2048, 768, 3072, 0},  {2048, 768, 64, 0, true},
                                    {4096, 768, 3072, 8},  {16384, 768, 768, 64}, {128, 768, 768, 64}};
  for (const Product& p : products) {
    const double flops = 2 * double(p.rows) * double(p.in) * double(p.out);
    const OpInput rows{{p.rows, p.in}, false, t}, matrix{{p.out, p.in}, true, p.router ? DType::f32 : t, 0.02};
    const double out = double(p.rows * p.out) * (p.router ? 4 : size);
    if (p.groups == 0) {
      add_op(cases, o, p.router ? "linear, router" : "linear", fmt::format("[{}, {}] x {}", p.rows, p.in, p.out), flops,
             2, out, {rows, matrix}, [] { return [](const auto& v) { return linear(v[0], v[1]); }; });
      continue;
    }
    for (const bool even : {true, false})
      add_op(cases, o, "grouped_linear",
             fmt::format("[{}, {}] x {}, {} {}", p.rows, p.in, p.out, p.groups, even ? "even" : "uneven"), flops, 2,
             out, {rows, {{p.groups, p.out, p.in}, true, t, 0.02}}, [=, device = o.device] {
               const Tensor offsets =
                   even ? even_offsets(p.rows, p.groups, device) : uneven_offsets(p.rows, p.groups, device);
               return [offsets](const auto& v) { return grouped_linear(v[0], v[1], offsets); };
             });
  }
}

void add_attention(BenchCases& cases, const BenchOptions& o, bool gpu) {
  struct Sequences {
    int64_t count, length, heads, width;
  };
  const std::vector<Sequences> all = o.tiny ? std::vector<Sequences>{{2, 5, 2, 4}}
                                     : gpu
                                         ? std::vector<Sequences>{{16, 1024, 12, 64}}
                                         : std::vector<Sequences>{{4, 512, 12, 64}, {8, 256, 12, 64}, {12, 64, 4, 32}};
  for (const auto [B, L, H, d] : all) {
    const OpInput heads{{B * L, H, d}, false, o.dtype};
    add_op(cases, o, "attention", fmt::format("{} x {}, {} heads of {}", B, L, H, d), 2.0 * double(B * L * L * H * d),
           2, bytes_of(heads), {heads, heads, heads}, [=, device = o.device] {
             const Tensor offsets = even_offsets(B * L, B, device);
             return [offsets](const auto& v) { return attention(v[0], v[1], v[2], offsets, offsets); };
           });
  }
}

/// Operations are counted as one each, exponentials and roots among them.
void add_rows(BenchCases& cases, const BenchOptions& o, bool gpu) {
  const int64_t rows = o.tiny ? 5 : gpu ? 32768 : 4096, D = o.tiny ? 8 : gpu ? 2048 : 768, E = o.tiny ? 3 : 64;
  const auto shape = [](int64_t n, int64_t width) { return fmt::format("[{}, {}]", n, width); };
  const double cells = double(rows * D);
  const OpInput x{{rows, D}, false, o.dtype}, pair{{rows, 2 * D}, false, o.dtype}, scores{{rows, E}, false, DType::f32};
  add_op(cases, o, "swiglu", shape(rows, 2 * D), 5 * cells, 2, bytes_of(x), {pair},
         [] { return [](const auto& v) { return swiglu(v[0]); }; });
  add_op(cases, o, "rms_norm", shape(rows, D), 4 * cells, 2, bytes_of(x), {x, {{D}, true, DType::f32}},
         [] { return [](const auto& v) { return rms_norm(v[0], v[1], 1e-5); }; });
  add_op(cases, o, "layer_norm", shape(rows, D), 6 * cells, 2, bytes_of(x),
         {x, {{D}, true, DType::f32}, {{D}, true, DType::f32}},
         [] { return [](const auto& v) { return layer_norm(v[0], v[1], v[2], 1e-5); }; });
  add_op(cases, o, "gelu", shape(rows, D), 10 * cells, 2, bytes_of(x), {x},
         [] { return [](const auto& v) { return gelu(v[0]); }; });
  const OpInput heads{{rows, D / (o.tiny ? 4 : 64), o.tiny ? 4 : 64}, false, o.dtype};
  add_op(cases, o, "rope", shape(rows, D), 3 * cells, 1, bytes_of(x), {heads}, [=, device = o.device] {
    std::vector<int32_t> position;
    for (int64_t t = 0; t < rows; ++t) position.push_back(int32_t(t % 1024));
    const Tensor at = on_device(tensor_of(position), device);
    return [=](const auto& v) { return rope(v[0], at, 10000); };
  });
  add_op(cases, o, "softmax", shape(rows, E), 5 * double(rows * E), 1, bytes_of(scores), {scores},
         [] { return [](const auto& v) { return softmax(v[0]); }; });

  const int64_t k = 2;
  std::vector<int32_t> expert, offsets{0};
  Random random({.seed = 9});
  for (int64_t t = 0; t < rows; ++t) {
    const auto first = random.below(uint64_t(E));
    expert.push_back(int32_t(first));
    expert.push_back(int32_t((first + 1 + random.below(uint64_t(E - 1))) % uint64_t(E)));
    offsets.push_back(int32_t(expert.size()));
  }
  const auto plan = [=, device = o.device] {
    return make_plan(on_device(tensor_of(expert), device), on_device(tensor_of(offsets), device), E);
  };
  const OpInput sorted{{k * rows, D}, false, o.dtype}, weight{{k * rows}, false, DType::f32};
  add_op(cases, o, "permute", fmt::format("{}, {} of {} experts", shape(rows, D), k, E), 0, 0, bytes_of(sorted), {x},
         [=] { return [p = plan()](const auto& v) { return permute(v[0], p); }; });
  add_op(cases, o, "combine", fmt::format("{}, {} of {} experts", shape(rows, D), k, E),
         2 * bytes_of(sorted) / double(size_of(o.dtype)), 2, bytes_of(x), {sorted, weight},
         [=] { return [p = plan()](const auto& v) { return combine(v[0], v[1], p); }; });
}

void add_losses(BenchCases& cases, const BenchOptions& o, bool gpu) {
  struct Loss {
    int64_t tokens, width, words;
  };
  const std::vector<Loss> losses = o.tiny ? std::vector<Loss>{{6, 8, 11}}
                                   : gpu  ? std::vector<Loss>{{8192, 768, 50304}}
                                          : std::vector<Loss>{{1024, 768, 8192}, {2048, 256, 257}};
  for (const auto [T, D, V] : losses)
    add_op(cases, o, "linear_cross_entropy", fmt::format("[{}, {}], {} words", T, D, V), 2.0 * double(T * D * V), 2, 4,
           {{{T, D}, false, o.dtype}, {{V, D}, true, o.dtype, 0.02}}, [=, device = o.device] {
             std::vector<int32_t> target;
             for (int64_t t = 0; t < T; ++t) target.push_back(int32_t(t * 7919 % V));
             const Tensor wanted = on_device(tensor_of(target), device);
             return [=](const auto& v) { return linear_cross_entropy(v[0], v[1], wanted, double(T)).loss; };
           });
}

}  // namespace

BenchCases ops_cases(const BenchOptions& o) {
  const bool gpu = o.device.kind == Device::cuda;
  BenchCases cases;
  add_products(cases, o, gpu);
  add_attention(cases, o, gpu);
  add_rows(cases, o, gpu);

  add_losses(cases, o, gpu);

  const int64_t n = o.tiny ? 100 : gpu ? 124'000'000 : 10'000'000;
  const int64_t each = 7 * 4 + (o.dtype == DType::bf16 ? 2 : 0);
  cases.push_back({.group = "ops",
                   .name = "adamw",
                   .shape = fmt::format("[{}]", n),
                   .dtype = o.dtype,
                   .flops = 12 * double(n),
                   .bytes = double(each * n),
                   .set_bytes = each * n,
                   .prepare = [=](int64_t sets) {
                     auto all = std::make_shared<std::deque<AdamWSet>>();
                     for (int64_t i = 0; i < sets; ++i) { all->emplace_back(n, o, uint64_t(i)); }
                     return BenchRun{[=](int64_t turn) {
                       auto& [set, moments, found, table] = (*all)[size_t(turn) % all->size()];
                       set.pointers[0]->has_grad = true;
                       adamw(set.pointers, std::span(&moments, 1), {.step = turn + 1}, found, table);
                     }};
                   }});
  return cases;
}

}  // namespace agon
