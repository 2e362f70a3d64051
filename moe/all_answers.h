#pragma once
#include "distributed/exchange.h"
#include "moe/answers.h"
#include "moe/experts.h"

namespace agon {

/// The score of every expert's answer to every token: x [T, D] -> [T, E] f32 (f64), E over all ranks of `comm`. One
/// expert's answers to some tokens are made at a time, at most `chunk_bytes` of them, and reduced at once. Recorded
/// only if `differentiable`: then the backward pass makes the answers again, chunk by chunk.
///
/// Forward and, if recorded, backward are collective. On several ranks some of every rank's tokens are gathered on all,
/// where they and their gradient take at most another `chunk_bytes` (of one token of each rank at least), and each
/// rank's experts answer them. Beside 4 bytes once, a rank sends each other rank its x, and the scores of that rank's
/// tokens by its experts; backward x again, the other rank's experts' scores' gradients, and the other's dx, which is
/// added in rank order.
Tensor all_answer_scores(const Tensor& x, const ExpertGroup& experts, AnswerScore score, int64_t chunk_bytes,
                         Communicator& comm, bool differentiable, const ExchangeOptions& exchange = {});

/// scores [n, e] of x [n, D]: on one rank, by its own experts.
struct LocalAnswerScores {
  /// A block of rows and one expert at a time, all in the cache.
  static void cpu(const Tensor& scores, const Tensor& x, const ExpertGroup& experts, AnswerScore score,
                  int64_t chunk_bytes);
  static void cuda(const Tensor& scores, const Tensor& x, const ExpertGroup& experts, AnswerScore score,
                   int64_t chunk_bytes);
  /// In steps, each a kernel over a chunk of rows, for any device: what a GPU runs, and a test of the fused kernel.
  static void in_steps(const Tensor& scores, const Tensor& x, const ExpertGroup& experts, AnswerScore score,
                       int64_t chunk_bytes);
};

/// offsets [e+1] i32: n rows, all of them one expert's.
struct RowsOfOne {
  static void cpu(const Tensor& offsets, int64_t expert, int64_t n);
  static void cuda(const Tensor& offsets, int64_t expert, int64_t n);
};

}  // namespace agon
