#pragma once
#include <cstdint>
#include <string>

#include "core/options.h"

namespace agon {

/// [data]: what to train on, and in which order.
struct DataOptions {
  std::string train = "builtin:domains";  // a text file, a folder of text files, or the generated corpus
  std::string valid;                      // likewise; empty: the last `valid_share` of the training text
  double valid_share = 0.01;
  std::string tokenizer = "bytes";
  std::string separator;  // between the documents of a file; empty: one file is one document
  std::string order = "shuffled";
  bool mask_documents = false;  // attention stays within a document
  int64_t builtin_bytes = 4'000'000;

  void visit(OptionVisitor& v);
};

}  // namespace agon
