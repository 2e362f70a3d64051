#pragma once
#include "distributed/communicator.h"
#include "moe/answers.h"
#include "moe/experts.h"

namespace agon {

/// The score of every expert's answer to every token: x [T, D] -> [T, E] f32 (f64), E over all ranks of `comm`. One
/// expert's answers to some tokens are made at a time, at most `chunk_bytes` of them, and reduced at once. Recorded
/// only if `differentiable`: then the backward pass makes the answers again, chunk by chunk. Forward and, if recorded,
/// backward are collective.
Tensor all_answer_scores(const Tensor& x, const ExpertGroup& experts, AnswerScore score, int64_t chunk_bytes,
                         Communicator& comm, bool differentiable);

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

/// Where gradients go that are wanted: those of one rank's experts are added, that of x [n, D] is written.
struct AnswerGradients {
  Tensor up, down, up_bias, down_bias, x;
};

/// The gradients from dscores [n, e]; the answers are made again. Kernels as for the scores, `chunk_bytes` on every
/// device.
struct LocalAnswerSlopes {
  static void cpu(const AnswerGradients& into, const Tensor& dscores, const Tensor& x, const ExpertGroup& experts,
                  AnswerScore score, int64_t chunk_bytes);
  static void cuda(const AnswerGradients& into, const Tensor& dscores, const Tensor& x, const ExpertGroup& experts,
                   AnswerScore score, int64_t chunk_bytes);
  static void in_steps(const AnswerGradients& into, const Tensor& dscores, const Tensor& x, const ExpertGroup& experts,
                       AnswerScore score, int64_t chunk_bytes);
};

/// How many tokens' inner activations and answers by one expert are at most `chunk_bytes`; at least one.
int64_t tokens_of_chunk(const ExpertGroup& experts, const Tensor& x, int64_t chunk_bytes);

/// The part [n, m] of a matrix that starts at (row, column), in a tensor of its own, and back; floats are rounded to
/// the dtype they go to.
struct MatrixPart {
  struct Take {
    static void cpu(const Tensor& part, const Tensor& whole, int64_t row, int64_t column);
    static void cuda(const Tensor& part, const Tensor& whole, int64_t row, int64_t column);
  };
  struct Put {
    static void cpu(const Tensor& whole, const Tensor& part, int64_t row, int64_t column);
    static void cuda(const Tensor& whole, const Tensor& part, int64_t row, int64_t column);
  };
};

/// offsets [e+1] i32: n rows, all of them one expert's.
struct RowsOfOne {
  static void cpu(const Tensor& offsets, int64_t expert, int64_t n);
  static void cuda(const Tensor& offsets, int64_t expert, int64_t n);
};

}  // namespace agon
