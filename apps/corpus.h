#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "apps/data_options.h"
#include "apps/tokenizer.h"

namespace agon {

/// Text, and what errors call each part of it ("books/a.txt", "books/a.txt, document 3").
struct Documents {
  std::vector<std::string> text, source;
};

/// The documents at `where`: a text file, a folder (every file below it that is not hidden, sorted by path), or
/// "builtin:domains". Throws UserError naming the file when something is missing, unreadable, empty or binary (a NUL
/// byte).
Documents read_documents(const std::string& where, const DataOptions& options);

/// A stream of tokens: documents in order, each followed by the tokenizer's end of document.
struct Tokens {
  std::vector<int32_t> id;
  std::string source;  // for messages
};

Tokens tokenize(Documents documents, std::string source, const Tokenizer& tokenizer);

/// What a run trains and is measured on.
struct Corpus {
  std::shared_ptr<const Tokenizer> tokenizer;
  Tokens train, valid;  // valid is empty when `data.valid_share` is 0 and `data.valid` is not given
  /// Of tokenizer and tokens: the same on resume, or it is another corpus.
  uint64_t fingerprint = 0;
};

/// Reads and tokenizes. `saved` is a checkpoint's tokenizer, kept instead of making one from the text. Throws UserError
/// as above, and when a part has fewer than 2 tokens.
Corpus load_corpus(const DataOptions& options, std::shared_ptr<const Tokenizer> saved = nullptr);

/// A text to evaluate on (`eval --data`), with a checkpoint's tokenizer.
Tokens load_tokens(const std::string& where, const DataOptions& options, const Tokenizer& tokenizer);

}  // namespace agon
