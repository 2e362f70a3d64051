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

}  // namespace agon
