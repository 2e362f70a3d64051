#pragma once
#include "ops/cpu/attention_kernels.h"
#include "ops/cpu/row_lanes.h"

// Products of squares, for files compiled for one instruction set each: everything here is local to the including file,
// which defines fma(a, b, c) of registers, rounded once, and is compiled without contraction of its own.
namespace agon::cpu {
namespace {

// Eight sums a register, one or two registers wide: enough chains for two instructions of four cycles at once, and what
// they read may lie as it is: nothing is packed.
constexpr int kRows = 8, kRegisters = kRegisterBytes == 64 ? 2 : 1;

struct Range {
  int64_t begin, end;
};

/// c [rows, columns] = [c * shrink +] sum over ascending l in `depth` of a(i, l) * b(l, j), one chain of fused
/// multiply-adds per number. a(i, l) is a[i, l], or a[l, i] where `turned`.
///
/// Then come `plain` further steps l, products and sums rounded one by one, of which row i takes the first i + `head`.
template <class A>
struct Product {
  const A *a, *b;
  A* c;
  Range depth;
  bool add;
  const A* shrink = nullptr;
  int64_t plain = 0, head = 0;
};

template <class A>
[[gnu::always_inline]] inline Register<A> load_register(const A* p) {
  Register<A> r;
  __builtin_memcpy(&r, p, sizeof r);
  return r;
}

/// R rows from i on and N registers of columns from j on.
template <class A, bool turned, int R, int N>
[[gnu::always_inline]] inline void multiply_some(const Product<A>& p, int64_t i, int64_t j) {
  constexpr int kNumbers = kRegisterBytes / int(sizeof(A));
  constexpr int64_t kStep = turned ? kAttentionTile : 1, kRow = turned ? 1 : kAttentionTile;
  A* const c = p.c + i * kAttentionTile + j;
  Register<A> sum[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      sum[r][n] = p.add ? load_register(c + r * kAttentionTile + n * kNumbers) : Register<A>{};
      if (p.add && p.shrink) sum[r][n] = sum[r][n] * (p.shrink[i + r] - Register<A>{});
    }
  const A *a = p.a + i * kRow + p.depth.begin * kStep, *b = p.b + p.depth.begin * kAttentionTile + j;
  const auto step = [&](auto&& take) {
    Register<A> right[N];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) right[n] = load_register(b + n * kNumbers);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Register<A> left = a[r * kRow] - Register<A>{};
      take(sum[r], left, right, r);
    }
    a += kStep, b += kAttentionTile;
  };
  for (int64_t l = p.depth.begin; l < p.depth.end; ++l)
    step([](auto& total, const auto& left, const auto& right, int) {
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) total[n] = fma(left, right[n], total[n]);
    });
  for (int64_t l = 0; l < p.plain; ++l)
    step([&](auto& total, const auto& left, const auto& right, int r) {
      if (l >= r + p.head) return;
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) total[n] = total[n] + left * right[n];
    });
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) __builtin_memcpy(c + r * kAttentionTile + n * kNumbers, &sum[r][n], sizeof sum[r][n]);
}

/// R rows and columns of a multiple of 16.
template <class A, bool turned, int R>
[[gnu::noinline]] void multiply_rows(const Product<A>& p, int64_t i, Range columns) {
  constexpr int64_t kNumbers = kRegisterBytes / int(sizeof(A));
  int64_t j = columns.begin;
  for (; j + kRegisters * kNumbers <= columns.end; j += kRegisters * kNumbers)
    multiply_some<A, turned, R, kRegisters>(p, i, j);
  for (; j < columns.end; j += kNumbers) multiply_some<A, turned, R, 1>(p, i, j);
}

template <class A, bool turned>
void multiply(const Product<A>& p, Range rows, Range columns) {
  int64_t i = rows.begin;
  for (; i + kRows <= rows.end; i += kRows) multiply_rows<A, turned, kRows>(p, i, columns);
  if (i + 4 <= rows.end) multiply_rows<A, turned, 4>(p, i, columns), i += 4;
  if (i + 2 <= rows.end) multiply_rows<A, turned, 2>(p, i, columns), i += 2;
  if (i < rows.end) multiply_rows<A, turned, 1>(p, i, columns);
}

}  // namespace
}  // namespace agon::cpu
