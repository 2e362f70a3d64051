#include "apps/utf8.h"

#include <doctest/doctest.h>

using namespace agon;

TEST_CASE("utf8: well-formed characters have a length, others none") {
  CHECK(utf8_length("a") == 1);
  CHECK(utf8_length("é") == 2);
  CHECK(utf8_length("€x") == 3);
  CHECK(utf8_length("😀") == 4);
  CHECK(utf8_decode("😀") == 0x1F600);
  CHECK(utf8_decode("é") == 0xE9);
  for (const char* bad : {"", "\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5", "\xC3", "\xE2\x82", "\xC3(", "\xFF"})
    CHECK(utf8_length(bad) == 0);
}

TEST_CASE("utf8: a stream passes whole characters only, whatever the pieces") {
  const std::string text = "añ€😀z";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    Utf8Stream stream;
    std::string out;
    for (size_t at = 0; at < text.size(); at += piece) {
      const std::string part = stream.push(text.substr(at, piece));
      for (size_t i = 0; i < part.size();) {
        const size_t n = utf8_length(std::string_view(part).substr(i));
        REQUIRE(n > 0);
        i += n;
      }
      out += part;
    }
    CHECK(out == text);
    CHECK(stream.finish().empty());
  }
}

TEST_CASE("utf8: a stream replaces what belongs to no character") {
  Utf8Stream stream;
  CHECK(stream.push("a\xFF"
                    "b") == "a\uFFFDb");
  CHECK(stream.push("\xE2\x82") == "");
  CHECK(stream.push("x") == "\uFFFD\uFFFDx");
  CHECK(stream.push("\xF0\x9F") == "");
  CHECK(stream.finish() == "\uFFFD");
  CHECK(stream.finish() == "");
}

TEST_CASE("utf8: printable text has no control characters") {
  CHECK(printable("a\n\x1B[é\xFF") == "a\\x0a\\x1b[é\\xff");
}
