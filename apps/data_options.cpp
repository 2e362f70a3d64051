#include "apps/data_options.h"

namespace agon {

void DataOptions::visit(OptionVisitor& v) {
  v("train", train, {}, "a text file, a folder of text files, or builtin:domains");
  v("valid", valid, {}, "text to validate on, likewise; empty: the last valid_share of the training text");
  v("valid_share", valid_share, Range::from_below(0, 1),
    "share of the training text kept for validation when valid is empty");
  v("tokenizer", tokenizer, {}, "bytes or chars");
  v("separator", separator, {}, "text between the documents of a file; empty: one file is one document");
  v("order", order, {"shuffled", "random", "sequential"},
    "of the training sequences: every window once per epoch, uniform offsets, or as in the text");
  v("mask_documents", mask_documents, "keep attention within a document");
  v("builtin_bytes", builtin_bytes, Range::within(10'000, 1'000'000'000), "size of builtin:domains");
}

}  // namespace agon
