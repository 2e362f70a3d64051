#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "apps/corpus.h"
#include "core/tensor.h"

// Letters: T tokens of the batch, B sequences, L sequence length.

namespace agon {

/// Tokens and what follows each of them, on the CPU, made outside or inside an arena as the caller's scope says.
struct Batch {
  Tensor token, target;   // [T] i32; every token has a target
  Tensor position;        // [T] i32, from 0 in each sequence
  Tensor offsets;         // [B+1] i32: windows, or with mask_documents the parts of documents in them
  int64_t first_row = 0;  // number of the first token, counted over the run (the evaluation)
  int64_t bytes = 0;      // of text that the targets stand for
};

/// Which part of a step's sequences: micro-batch `micro` of `micros`, and in it the share of `rank` of `ranks`.
struct Slice {
  int64_t micro = 0, micros = 1, rank = 0, ranks = 1;
};

/// Where the n-th training sequence of a run starts: a function of (seed, n) alone, so nothing has to be stored to
/// resume.
///   sequential: windows of L + 1 tokens one after the other, again from the start at the end.
///   shuffled:   each epoch is a permutation of the windows, shifted by a random offset below L.
///   random:     independent uniform offsets (nanoGPT).
class DataOrder {
 public:
  /// tokens >= L + 1.
  DataOrder(const std::string& order, int64_t tokens, int64_t sequence, uint64_t seed);
  int64_t offset(int64_t n) const;
  int64_t windows() const { return windows_; }  ///< per epoch

 private:
  enum class Kind { sequential, shuffled, random } kind_;
  int64_t tokens_, sequence_, windows_;
  uint64_t seed_;
};

/// The keyed permutation of [0, n) behind "shuffled": four Feistel rounds on the next power of 4, walked until below n.
int64_t permuted(int64_t i, int64_t n, uint64_t seed, uint64_t stream);

/// The training batches of a run. Holds a reference to the tokens.
class TrainingData {
 public:
  /// `batch` sequences of `sequence` tokens per step, over all ranks and micro-batches. Throws UserError when the text
  /// is shorter than one sequence.
  TrainingData(const Corpus& corpus, const DataOptions& options, int64_t sequence, int64_t batch, uint64_t seed);

  /// The slice's sequences of step `step` (from 0). All slices of a step together are the same sequences in the same
  /// order whatever the numbers of micro-batches and ranks; micros * ranks must divide the batch (Error).
  Batch batch(int64_t step, const Slice& slice = {}) const;
  /// Sequences [first, first + count) of the run.
  Batch sequences(int64_t first, int64_t count) const;

  int64_t tokens_per_step() const { return batch_ * sequence_; }
  double epochs(int64_t steps) const;  ///< how often so many steps see the text

 private:
  const Corpus& corpus_;
  DataOrder order_;
  int64_t sequence_, batch_;
  bool mask_;
};

/// A whole text once, in windows of L tokens that do not overlap: every token but the first is a target exactly once;
/// the last window may be shorter. Holds a reference to the tokens.
class EvaluationData {
 public:
  /// At most `limit` targets from the start of the text (0: all).
  EvaluationData(const Tokens& tokens, const Tokenizer& tokenizer, const DataOptions& options, int64_t sequence,
                 int64_t limit = 0);

  int64_t windows() const;
  int64_t targets() const { return targets_; }
  /// Windows [first, first + count), cut at the end; T = 0 beyond it.
  Batch batch(int64_t first, int64_t count) const;

 private:
  const Tokens& tokens_;
  const Tokenizer& tokenizer_;
  int64_t sequence_, targets_;
  bool mask_;
};

}  // namespace agon
