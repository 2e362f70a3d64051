#pragma once
#include "ops/cpu/rows.h"

// What attention.cpp asks of an instruction set, and the sets there are. Every set gives the same bits. Nothing of the
// standard library here, for the reason gemm_kernels.h gives.
namespace agon::cpu {

/// Queries and keys a tile of attention spans. Tiles start at multiples of it, counted from the first key of the
/// sequence, so the pieces a row is computed in depend on its position alone.
inline constexpr int64_t kAttentionTile = 64;

/// Numbers in a square of kAttentionTile rows and columns. All operands are cut into squares: rows of d numbers into as
/// many, one after the other, as their columns need.
inline constexpr int64_t kAttentionSquare = kAttentionTile * kAttentionTile;
inline constexpr int64_t attention_squares(int64_t width) { return (width + kAttentionTile - 1) / kAttentionTile; }

/// A tile of queries and one of keys of a head. Both stand in their squares by position: queries in the rows
/// [first, end), keys in [0, keys). On the diagonal query i sees the keys 0 ... i, before it all.
template <class A>
struct AttentionTile {
  int64_t width;  // d
  int64_t first, end, keys;
  bool diagonal;
  bool first_keys, first_queries;  // the first of its queries' tiles of keys, of its keys' tiles of queries
  A scale;                         // of scores
};

/// The running softmax of a tile of queries. `answer`: rows of d; the others: a number a query.
template <class A>
struct AttentionSoftmax {
  A *answer, *top, *sum, *shrink;
};

/// Of the backward pass: rows of d except those `turned`, which are [d, queries], and what has a number a query.
template <class A>
struct AttentionSlopes {
  const A *queries, *queries_turned, *dy, *dy_turned, *keys, *values, *logsumexp, *delta;
  A *weights, *slopes;  // a square each, for P and dS: [keys, queries]
  A *dq, *dk, *dv;
};

/// What there is for tensors that hold T. All squares hold A: f32, f64 for double.
template <class T>
struct AttentionKernels {
  using A = typename RowNumber<T>::type;

  /// Rows [first, end) of `to` = rows of `width` numbers, `stride` apart. What lies about them up to multiples of 16
  /// rows and columns becomes 0.
  void (*take)(A* to, const T* from, int64_t stride, int64_t first, int64_t end, int64_t width);
  /// The reverse; row i times factor[i] unless that is null.
  void (*give)(T* to, int64_t stride, const A* from, const A* factor, int64_t first, int64_t end, int64_t width);
  /// to [width, rows] = from [rows, width], for whole multiples of 16 that hold the rows [first, end).
  void (*turn)(A* to, const A* from, int64_t first, int64_t end, int64_t width);
  /// Takes a tile of keys into the softmax: scores (a square) become the weights [keys, queries], `answer` and `sum`
  /// shrink to the new top and grow.
  void (*attend)(const AttentionTile<A>& tile, const A* queries_turned, const A* keys, const A* values, A* scores,
                 const AttentionSoftmax<A>& softmax);
  /// P = exp(scores - logsumexp) and dS = P (dP - delta) * scale; dq, dk and dv grow by theirs, from 0 where the
  /// tile is the first.
  void (*slope)(const AttentionTile<A>& tile, const AttentionSlopes<A>& operands);
};

struct AttentionInstructions {
  const char* name;
  AttentionKernels<float> f32;
  AttentionKernels<bf16> half;
  AttentionKernels<double> f64;
};

extern const AttentionInstructions kAttentionGeneric, kAttentionAvx2, kAttentionAvx512;

/// The i-th of the sets this processor can run, widest first; null past the last, which is generic.
const AttentionInstructions* attention_instructions(int i);

}  // namespace agon::cpu
