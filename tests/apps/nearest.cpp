#include "apps/nearest.h"

#include <doctest/doctest.h>

using namespace agon;

TEST_CASE("nearest: the distance counts insertions, deletions, substitutions and swaps") {
  CHECK(edit_distance("", "") == 0);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("abc", "") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("widht", "width") == 1);
  CHECK(edit_distance("ca", "abc") == 3);  // 2 where a part may be edited twice
  CHECK(edit_distance("abcd", "badc") == 2);
}

TEST_CASE("nearest: the least distance wins, the first of equals, and nothing that shares too little") {
  const std::vector<std::string> known{"width", "heads", "layers", "kv_heads"};
  CHECK(nearest("widht", known) == "width");
  CHECK(nearest("layer", known) == "layers");
  CHECK(nearest("head", known) == "heads");
  CHECK(nearest("kvheads", known) == "kv_heads");
  CHECK(nearest("precision", known) == "");
  CHECK(nearest("xy", {"ab"}) == "");  // every letter differs
  CHECK(nearest("ac", {"ab", "ad"}) == "ab");
  CHECK(nearest(std::string(1'000'000, 'a'), known) == "");
  CHECK(nearest("a", {}) == "");
}

TEST_CASE("nearest: a suggestion names the nearest or all") {
  CHECK(suggestion("widht", {"width", "heads"}) == "; did you mean \"width\"?");
  CHECK(suggestion("zzzzzz", {"width", "heads"}) == "; known are width, heads");
  CHECK(suggestion("zzzzzz", {}) == "; there are none");
  CHECK(joined({"a", "b"}, " | ") == "a | b");
  CHECK(joined({}) == "");
}
