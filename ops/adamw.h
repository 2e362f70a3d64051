#pragma once
#include <cmath>
#include <span>
#include <vector>

#include "autograd/parameter.h"
#include "ops/cpu/rows.h"

namespace agon {

/// AdamW (Loshchilov & Hutter, arXiv 1711.05101): m = β1 m + (1-β1) g; v = β2 v + (1-β2) g²;
/// w -= rate * (m̂ / (sqrt(v̂) + ε) + decay * w), where m̂ and v̂ are corrected for their start at 0.
struct AdamWOptions {
  double rate = 1e-3, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, decay = 0.1;
  double clip = 0;   // gradients are scaled down to this global norm; 0: never
  int64_t step = 1;  // counts from 1
};

/// First and second moments of one parameter, in the dtype of its master, zero at first.
struct Moments {
  Tensor first, second;
};

struct AdamW {
  /// Where a GPU finds the tensors of one parameter.
  struct Row {
    float *master, *first, *second;
    const float* gradient;
    bf16* rounded;  // the values of a bf16 model; null: they are the master
    int64_t size;
    int64_t first_block;  // of the blocks that run over all parameters
    int32_t decays, padding = 0;
    bool operator==(const Row&) const = default;
  };
  /// All parameters in one launch. Uploaded by the first update, and again when an address has changed; the CPU needs
  /// none.
  struct Table {
    std::vector<Row> rows;
    Tensor there;  // the same on the GPU
  };
  /// What the update depends on that only the device knows.
  struct Found {
    Tensor square_sum;  // [1] f64: of the gradients
    Tensor loss = {};   // [1] f64; empty: finite
  };
  struct Update {
    static void cpu(Table& table, std::span<Parameter* const> parameters, std::span<const Moments> moments,
                    const AdamWOptions& options, const Found& found);
    static void cuda(Table& table, std::span<Parameter* const> parameters, std::span<const Moments> moments,
                     const AdamWOptions& options, const Found& found);
  };
};

/// Updates each master from its grad and moments and refreshes the values, unless the gradients' norm or the loss is
/// not finite: then nothing changes. Marks the gradients as taken either way, because a GPU decides it and is not
/// asked. Decay applies to parameters with `decays`. f32 arithmetic (f64 for f64).
void adamw(std::span<Parameter* const> parameters, std::span<const Moments> moments, const AdamWOptions& options,
           const AdamW::Found& found, AdamW::Table& table);

/// The numbers the loops need, in their arithmetic; bias corrections are made in f64.
template <class A>
struct AdamWNumbers : cpu::UpdateNumbers<A> {
  explicit AdamWNumbers(const AdamWOptions& o)
      : cpu::UpdateNumbers<A>{.beta1 = A(o.beta1),
                              .rest1 = A(1 - o.beta1),
                              .beta2 = A(o.beta2),
                              .rest2 = A(1 - o.beta2),
                              .correction1 = A(1 / (1 - std::pow(o.beta1, double(o.step)))),
                              .correction2 = A(1 / (1 - std::pow(o.beta2, double(o.step)))),
                              .rate = A(o.rate),
                              .epsilon = A(o.epsilon)} {}
};

/// What clips gradients of this norm.
constexpr double clipping_scale(double norm, double clip) { return clip > 0 && norm > clip ? clip / norm : 1; }

}  // namespace agon
