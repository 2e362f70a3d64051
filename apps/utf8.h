#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace agon {

/// Bytes of the well-formed UTF-8 character at the start of `text` (Unicode 15, table 3-7: no overlong forms,
/// surrogates or numbers above U+10FFFF); 0 when there is none.
size_t utf8_length(std::string_view text);

/// The number of a well-formed character.
char32_t utf8_decode(std::string_view character);

/// Whether `text` could become a well-formed character by appending bytes to it.
bool utf8_unfinished(std::string_view text);

/// Passes a stream of bytes on in whole characters, so that a terminal never sees half of one.
class Utf8Stream {
 public:
  /// What is whole by now; bytes that can belong to no character come out as U+FFFD.
  std::string push(std::string_view bytes);
  /// The rest at the end of the stream: U+FFFD for an unfinished character, else empty.
  std::string finish();

 private:
  std::string pending_;
};

/// `text` for an error message: control characters, and bytes that are not UTF-8, as \xNN.
std::string printable(std::string_view text);

}  // namespace agon
