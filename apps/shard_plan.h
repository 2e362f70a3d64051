#pragma once
#include <span>
#include <string>
#include <vector>

#include "apps/tensor_part.h"
#include "apps/tensor_table.h"

namespace agon {

/// A part of a tensor that a rank has.
struct OfferedPart {
  std::string kind;  // of kTensorKinds
  std::string name;
  DType dtype = DType::f32;
  Shape whole;
  int64_t first = 0, count = 0;
};

/// What one rank brings to a checkpoint.
struct Offer {
  int64_t step = 0;
  std::vector<OfferedPart> parts;
};

/// For sending to other ranks. Error where a name is no UTF-8.
std::string to_text(const Offer& offer);
Offer offer_from_text(const std::string& text);

/// Which rank writes what.
struct ShardPlan {
  bool one_file = false;  ///< one rank has everything whole: a file of each kind
  TensorTables tables;    ///< where everything will be

  std::string file(const std::string& kind, int rank, int ranks) const;  ///< what a rank writes of a kind
};

/// Made from the offers of all ranks, by rank. Of parts with the same name and range that several ranks have one rank
/// writes each element, so that ranks write about the same number of bytes: the large ones are cut for that. Error
/// where ranks disagree on the step or on a tensor's shape or dtype, or where elements are missing.
ShardPlan plan_shards(std::span<const Offer> offers);

}  // namespace agon
