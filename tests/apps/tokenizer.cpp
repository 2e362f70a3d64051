#include "apps/tokenizer.h"

#include <doctest/doctest.h>

#include "tests/support/message.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using test::check_contains, test::user_error;
using testing::TemporaryFolder;

namespace {

std::shared_ptr<const Tokenizer> chars(const std::string& text, bool ends = false) {
  const std::vector<std::string> texts{text}, sources{"a.txt"};
  return make_char_tokenizer(texts, sources, ends);
}

std::string write(const TemporaryFolder& folder, const std::string& name, const std::string& content) {
  testing::put(folder / name, content);
  return folder / name;
}

}  // namespace

TEST_CASE("tokenizer: bytes round-trip every byte") {
  const auto t = make_byte_tokenizer();
  std::string all;
  for (int i = 0; i < 256; ++i) all += char(i);
  const auto ids = t->encode(all);
  REQUIRE(ids.size() == 256);
  for (int i = 0; i < 256; ++i) CHECK(ids[size_t(i)] == i);
  CHECK(t->decode(ids) == all);
  CHECK(t->vocabulary() == 257);
  CHECK(t->end_of_document() == 256);
  CHECK(t->piece(256).empty());
  CHECK(t->bytes_of(255) == 1);
  CHECK(t->bytes_of(256) == 0);
  check_contains(user_error([&] { (void)t->piece(257); }), {"257"});
  check_contains(user_error([&] { (void)t->piece(-1); }), {"-1"});
}

TEST_CASE("tokenizer: chars are the sorted distinct characters") {
  const auto t = chars("héllo €!\n");
  CHECK(t->vocabulary() == 8);
  CHECK(t->end_of_document() == -1);
  std::vector<int32_t> all(8);
  for (int32_t i = 0; i < 8; ++i) all[size_t(i)] = i;
  CHECK(t->decode(all) == "\n !hloé€");
  CHECK(t->encode("hé€") == std::vector<int32_t>{3, 6, 7});
  CHECK(t->bytes_of(7) == 3);
  CHECK(t->bytes_of(6) == 2);
  const auto ended = chars("ab", true);
  CHECK(ended->vocabulary() == 3);
  CHECK(ended->end_of_document() == 2);
  CHECK(ended->bytes_of(2) == 0);
}

TEST_CASE("tokenizer: an unknown character is named with its place") {
  const auto t = chars("abc\n");
  const std::string error = user_error([&] { (void)t->encode("ab\nc€", "book.txt"); });
  check_contains(error, {"book.txt", "€", "line 2", "byte 4", "4 characters"});
  check_contains(user_error([&] { (void)t->encode("a\xFF", "book.txt"); }), {"book.txt", "UTF-8", "\\xff", "byte 1"});
  check_contains(user_error([] { (void)chars("ab\xC3("); }), {"a.txt", "UTF-8", "\\xc3", "byte 2"});
  check_contains(user_error([] { (void)chars(""); }), {"empty"});
}

TEST_CASE("tokenizer: JSON restores the same ids") {
  for (const auto& t : {make_byte_tokenizer(), chars("\"\\zé€😀\t"), chars("ab", true)}) {
    const auto again = tokenizer_from_json(t->json(), "tokenizer.json");
    CHECK(again->kind() == t->kind());
    CHECK(again->vocabulary() == t->vocabulary());
    CHECK(again->end_of_document() == t->end_of_document());
    for (int32_t i = 0; i < t->vocabulary(); ++i) CHECK(again->piece(i) == t->piece(i));
    CHECK(again->json() == t->json());
  }
}

TEST_CASE("tokenizer: bad JSON is refused by name") {
  const auto error = [](const std::string& json) {
    return user_error([&] { (void)tokenizer_from_json(json, "t.json"); });
  };
  for (const char* bad : {"", "{", "[]", "3", "nonsense", "{\"kind\":3}", "{\"kind\":\"chars\"}",
                          "{\"kind\":\"chars\",\"characters\":\"ba\",\"ends_documents\":false}",
                          "{\"kind\":\"chars\",\"characters\":\"aa\",\"ends_documents\":false}",
                          "{\"kind\":\"chars\",\"characters\":\"\",\"ends_documents\":false}",
                          "{\"kind\":\"chars\",\"characters\":\"ab\",\"ends_documents\":1}",
                          "{\"kind\":\"chars\",\"characters\":\"a\xFF\",\"ends_documents\":true}"})
    check_contains(error(bad), {"t.json"});
  check_contains(error("{\"version\":\"1.0\",\"model\":{}}"), {"only", "bytes and chars"});
  check_contains(error("{\"kind\":\"bpe\"}"), {"bpe", "bytes and chars"});
  check_contains(error(std::string(200'000, '[')), {"nested"});
  check_contains(error(std::string((16 << 20) + 1, ' ')), {"at most"});
}

TEST_CASE("tokenizer: files that cannot be loaded") {
  const TemporaryFolder folder;
  CHECK(load_tokenizer(write(folder, "good.json", make_byte_tokenizer()->json()))->vocabulary() == 257);
  check_contains(user_error([&] { (void)load_tokenizer(folder / "none.json"); }), {"none.json", "No such file"});
  check_contains(user_error([&] { (void)load_tokenizer(folder.path()); }), {"folder"});
  check_contains(user_error([] { (void)load_tokenizer("/dev/null"); }), {"/dev/null", "expected a file"});
}
