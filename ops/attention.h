#pragma once
#include "core/tensor.h"

namespace agon {

/// Causal attention with grouped queries: q [Tq, H, d], k and v [Tk, G, d], H a multiple of G; query head h reads key
/// head h / (H / G). Scores are scaled by 1/sqrt(d).
///
/// query_offsets and key_offsets [B+1] i32 cut the rows into sequences: queries of sequence b see keys of sequence b
/// only, the last query aligned with the last key: query i of n sees the keys j with j - i <= m - n, of m keys (n <=
/// m). In training both are the same tensor; in generation n = 1 and the keys are the cache, whose rows after the last
/// sequence are never read and have gradient 0. No block larger than a tile times a tile exists; backward recomputes
/// the scores from q, k and the saved logsumexp [Tq, H] f32.
///
/// A query's row has the same bits whether its whole sequence is computed or it alone against cached keys, and keys it
/// may not see are not touched on its behalf, so that not even a NaN among them reaches it.
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& query_offsets,
                 const Tensor& key_offsets);

struct Attention {
  struct Forward {
    static void cpu(const Tensor& y, const Tensor& logsumexp, const Tensor& q, const Tensor& k, const Tensor& v,
                    const Tensor& query_offsets, const Tensor& key_offsets);
    static void cuda(const Tensor& y, const Tensor& logsumexp, const Tensor& q, const Tensor& k, const Tensor& v,
                     const Tensor& query_offsets, const Tensor& key_offsets);
  };
  /// All three gradients, written over.
  struct Backward {
    static void cpu(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dy, const Tensor& y,
                    const Tensor& logsumexp, const Tensor& q, const Tensor& k, const Tensor& v,
                    const Tensor& query_offsets, const Tensor& key_offsets);
    static void cuda(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dy, const Tensor& y,
                     const Tensor& logsumexp, const Tensor& q, const Tensor& k, const Tensor& v,
                     const Tensor& query_offsets, const Tensor& key_offsets);
  };
};

}  // namespace agon
