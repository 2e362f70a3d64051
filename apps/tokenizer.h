#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace agon {

/// Turns text into ids below `vocabulary()` and back. Immutable.
///   bytes: ids 0 to 255 are bytes, 256 ends a document.
///   chars: the distinct UTF-8 characters of the training text, sorted by code point; an id that ends a document
///   follows
///          only when the training text has several documents.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::string_view kind() const = 0;  ///< what `data.tokenizer` calls it
  virtual int64_t vocabulary() const = 0;
  /// The id that follows each document; -1: none.
  virtual int32_t end_of_document() const = 0;
  /// Appends the ids of `text` to `ids`. `source` names the text in errors. Throws UserError with the place of a
  /// character that the vocabulary lacks or of a byte that is not UTF-8 (chars).
  virtual void encode(std::string_view text, std::string_view source, std::vector<int32_t>& ids) const = 0;
  /// The UTF-8 bytes that an id stands for; empty for the end of a document. Throws UserError for an id that is none.
  virtual std::string_view piece(int32_t id) const = 0;
  /// As JSON, for `tokenizer_from_json`. The same tokenizer gives the same text.
  virtual std::string json() const = 0;

  std::vector<int32_t> encode(std::string_view text, std::string_view source = "the text") const;
  /// The pieces one after the other; may begin or end within a character (Utf8Stream makes whole ones of a stream).
  std::string decode(std::span<const int32_t> ids) const;
  /// Bytes of text that an id stands for; 0 for the end of a document, which costs bits without being text.
  int64_t bytes_of(int32_t id) const { return int64_t(piece(id).size()); }
};

std::shared_ptr<const Tokenizer> make_byte_tokenizer();

/// The characters of `documents`. `sources` names them in errors (same length). Throws UserError for text that is not
/// UTF-8.
std::shared_ptr<const Tokenizer> make_char_tokenizer(std::span<const std::string> documents,
                                                     std::span<const std::string> sources, bool ends_documents);

/// Throws UserError naming `source` for anything but what `json()` writes.
std::shared_ptr<const Tokenizer> tokenizer_from_json(std::string_view json, std::string_view source);
std::shared_ptr<const Tokenizer> load_tokenizer(const std::string& path);

}  // namespace agon
