#include "apps/corpus.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "tests/support/message.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using test::check_contains, test::user_error;
using testing::TemporaryFolder;

namespace {

DataOptions on(const std::string& train, const std::string& tokenizer = "bytes") {
  DataOptions o;
  o.train = train;
  o.tokenizer = tokenizer;
  o.valid_share = 0;
  return o;
}

std::string write(const TemporaryFolder& folder, const std::string& name, const std::string& content) {
  std::filesystem::create_directories(std::filesystem::path(folder / name).parent_path());
  testing::put(folder / name, content);
  return folder / name;
}

}  // namespace

TEST_CASE("corpus: a file is a document, its last share validates") {
  const TemporaryFolder folder;
  DataOptions o = on(write(folder, "a.txt", "0123456789abcdefghi"));
  Corpus c = load_corpus(o);
  CHECK(c.train.id.size() == 20);
  CHECK(c.train.id.back() == 256);
  CHECK(c.valid.id.empty());
  o.valid_share = 0.1;
  c = load_corpus(o);
  CHECK(c.tokenizer->decode(c.train.id) == "0123456789abcdefgh");
  CHECK(c.valid.id == std::vector<int32_t>{'i', 256});
  o.tokenizer = "chars";
  o.valid_share = 0.4;
  c = load_corpus(o);
  CHECK(c.tokenizer->decode(c.train.id) == "0123456789a");
  CHECK(c.tokenizer->decode(c.valid.id) == "bcdefghi");
  CHECK(c.tokenizer->vocabulary() == 19);
}

TEST_CASE("corpus: a folder is its files in order of path, hidden ones left out") {
  const TemporaryFolder folder;
  write(folder, "t/b.txt", "bb");
  write(folder, "t/a/z.txt", "zz");
  write(folder, "t/a.txt", "aa");
  write(folder, "t/.git/x", std::string(3, '\0'));
  write(folder, "t/.hidden", "h");
  const Documents d = read_documents(folder / "t", {});
  CHECK(d.text == std::vector<std::string>{"aa", "zz", "bb"});
  const Corpus c = load_corpus(on(folder / "t", "chars"));
  CHECK(c.tokenizer->vocabulary() == 4);
  CHECK(c.train.id == std::vector<int32_t>{0, 0, 3, 2, 2, 3, 1, 1, 3});
}

TEST_CASE("corpus: a separator splits files into documents") {
  const TemporaryFolder folder;
  DataOptions o = on(write(folder, "a.txt", "one##two####three##"));
  o.separator = "##";
  const Documents d = read_documents(o.train, o);
  CHECK(d.text == std::vector<std::string>{"one", "two", "three"});
  CHECK(d.source[2] == folder / "a.txt, document 3");
  const Corpus c = load_corpus(o);
  CHECK(std::count(c.train.id.begin(), c.train.id.end(), 256) == 3);
  o.train = write(folder, "b.txt", "####");
  check_contains(user_error([&] { (void)load_corpus(o); }), {"b.txt", "separators"});
}

TEST_CASE("corpus: bad data is refused by name") {
  const TemporaryFolder folder;
  const auto error = [&](const std::string& path, const char* tokenizer = "bytes") {
    return user_error([&] { (void)load_corpus(on(path, tokenizer)); });
  };
  check_contains(error(folder / "none.txt"), {"none.txt", "No such file"});
  check_contains(error(write(folder, "empty.txt", "")), {"empty.txt", "empty"});
  check_contains(error(write(folder, "binary", std::string("ab\0c", 4))), {"binary", "NUL", "offset 2"});
  check_contains(error(write(folder, "latin.txt", "caf\xE9 noir"), "chars"), {"latin.txt", "UTF-8", "\\xe9", "byte 3"});
  CHECK(load_corpus(on(folder / "latin.txt")).train.id.size() == 10);
  std::filesystem::create_directory(folder / "void");
  check_contains(error(folder / "void"), {"void", "no files"});
  write(folder, "mixed/a.txt", "fine");
  write(folder, "mixed/b.bin", std::string(8, '\0'));
  check_contains(error(folder / "mixed"), {"b.bin", "NUL"});
  check_contains(error("/dev/zero"), {"/dev/zero", "expected a text file"});
  check_contains(error(""), {"empty string"});
  check_contains(error("builtin:domain"), {"builtin:domain", "builtin:domains"});
  check_contains(error(folder / "latin.txt", "tokenizer.json"), {"tokenizer.json", "No such file"});
  REQUIRE(mkfifo((folder / "pipe").c_str(), 0600) == 0);  // reading it would wait for a writer
  check_contains(error(folder / "pipe"), {"pipe", "expected a text file"});
  if (geteuid() != 0) {  // root reads everything
    std::filesystem::permissions(folder / "latin.txt", std::filesystem::perms::none);
    check_contains(error(folder / "latin.txt"), {"latin.txt", "ermission"});
  }
}

TEST_CASE("corpus: a validation text of its own") {
  const TemporaryFolder folder;
  DataOptions o = on(write(folder, "a.txt", "abcabc"), "chars");
  o.valid = write(folder, "v.txt", "cba");
  CHECK(load_corpus(o).valid.id == std::vector<int32_t>{2, 1, 0});
  o.valid = write(folder, "w.txt", "cbx");
  check_contains(user_error([&] { (void)load_corpus(o); }), {"w.txt", "'x'", "byte 2"});
  o.valid = write(folder, "short.txt", "c");
  check_contains(user_error([&] { (void)load_corpus(o); }), {"short.txt", "1 tokens", "at least 2"});
  o.valid = "";
  o.valid_share = 0.1;
  check_contains(user_error([&] { (void)load_corpus(o); }), {"1 tokens", "data.valid_share"});
}

TEST_CASE("corpus: a saved tokenizer is kept") {
  const TemporaryFolder folder;
  const Corpus first = load_corpus(on(write(folder, "a.txt", "abcd"), "chars"));
  const auto saved = tokenizer_from_json(first.tokenizer->json(), "saved");
  const Corpus second = load_corpus(on(write(folder, "b.txt", "dd"), "chars"), saved);
  CHECK(second.train.id == std::vector<int32_t>{3, 3});
  CHECK(load_tokens(folder / "b.txt", {}, *saved).id == std::vector<int32_t>{3, 3});
}

TEST_CASE("corpus: the fingerprint sees content and tokenizer, not paths") {
  const TemporaryFolder folder;
  const std::string text = "some text to be read";
  DataOptions o = on(write(folder, "a.txt", text));
  o.valid_share = 0.2;
  const uint64_t a = load_corpus(o).fingerprint;
  DataOptions p = o;
  p.train = write(folder, "elsewhere/b.txt", text);
  CHECK(load_corpus(p).fingerprint == a);
  p.train = write(folder, "c.txt", "some text to be Read");
  CHECK(load_corpus(p).fingerprint != a);
  p = o;
  p.tokenizer = "chars";
  CHECK(load_corpus(p).fingerprint != a);
  p = o;
  p.valid_share = 0.3;
  CHECK(load_corpus(p).fingerprint != a);
}

TEST_CASE("corpus: the built-in one has the size asked for") {
  DataOptions o;
  o.builtin_bytes = 50'000;
  const Corpus c = load_corpus(o);
  int64_t bytes = 0;
  for (const auto* part : {&c.train.id, &c.valid.id})
    for (int32_t id : *part) bytes += c.tokenizer->bytes_of(id);
  CHECK(bytes >= 50'000);
  CHECK(bytes < 51'000);
  CHECK(load_corpus(o).fingerprint == c.fingerprint);
}
