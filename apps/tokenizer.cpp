#include "apps/tokenizer.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "apps/file_system.h"
#include "apps/utf8.h"
#include "core/error.h"

namespace agon {

namespace {

constexpr int32_t kBytes = 256;
constexpr uint64_t kLargestFile = 16 << 20;  // all of Unicode is 4.4 MB
constexpr int kDeepest = 4;

std::string place(std::string_view text, size_t at) {
  return agon::text("line ", 1 + std::count(text.begin(), text.begin() + std::ptrdiff_t(at), '\n'), ", byte ", at);
}

/// The bytes of the character at `at`. Throws UserError when there is none.
std::string_view character(std::string_view text, size_t at, std::string_view source) {
  const size_t n = utf8_length(text.substr(at));
  if (n == 0)  // not require(): finding the place costs as much as reading the text
    throw UserError(agon::text(source, ": expected UTF-8, found the byte ", printable(text.substr(at, 1)), " at ",
                               place(text, at), "; tokenizer \"bytes\" takes any text"));
  return text.substr(at, n);
}

class ByteTokenizer final : public Tokenizer {
 public:
  ByteTokenizer() {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = char(uint8_t(i));
  }
  std::string_view kind() const override { return "bytes"; }
  int64_t vocabulary() const override { return kBytes + 1; }
  int32_t end_of_document() const override { return kBytes; }
  void encode(std::string_view text, std::string_view, std::vector<int32_t>& ids) const override {
    for (char c : text) ids.push_back(uint8_t(c));
  }
  std::string_view piece(int32_t id) const override {
    require(id >= 0 && id <= kBytes, "token ", id, " is not in the vocabulary of ", vocabulary(), " (bytes)");
    return id == kBytes ? std::string_view() : std::string_view(&bytes_[size_t(id)], 1);
  }
  std::string json() const override { return nlohmann::ordered_json{{"kind", "bytes"}}.dump() + "\n"; }

 private:
  std::array<char, kBytes> bytes_;
};

class CharTokenizer final : public Tokenizer {
 public:
  /// `characters`: well-formed, ascending, distinct.
  CharTokenizer(std::string characters, bool ends_documents)
      : characters_(std::move(characters)), ends_documents_(ends_documents) {
    for (size_t at = 0; at < characters_.size();) {
      const std::string_view c =
          std::string_view(characters_).substr(at, utf8_length(std::string_view(characters_).substr(at)));
      id_of_.resize(size_t(utf8_decode(c)) + 1, -1);
      id_of_.back() = int32_t(start_.size());
      start_.push_back(at);
      at += c.size();
    }
    size_ = int32_t(start_.size());
    start_.push_back(characters_.size());
  }
  std::string_view kind() const override { return "chars"; }
  int64_t vocabulary() const override { return size_ + (ends_documents_ ? 1 : 0); }
  int32_t end_of_document() const override { return ends_documents_ ? size_ : -1; }
  void encode(std::string_view text, std::string_view source, std::vector<int32_t>& ids) const override {
    for (size_t at = 0; at < text.size();) {
      const std::string_view c = character(text, at, source);
      const size_t number = utf8_decode(c);
      const int32_t id = number < id_of_.size() ? id_of_[number] : -1;
      if (id < 0)
        throw UserError(agon::text(source, ": the character '", printable(c), "' at ", place(text, at),
                                   " is not in the tokenizer's vocabulary of ", size_, " characters"));
      ids.push_back(id);
      at += c.size();
    }
  }
  std::string_view piece(int32_t id) const override {
    require(id >= 0 && id < vocabulary(), "token ", id, " is not in the vocabulary of ", vocabulary(), " (chars)");
    if (id == size_) return {};
    return std::string_view(characters_).substr(start_[size_t(id)], start_[size_t(id) + 1] - start_[size_t(id)]);
  }
  std::string json() const override {
    return nlohmann::ordered_json{{"kind", "chars"}, {"characters", characters_}, {"ends_documents", ends_documents_}}
               .dump() +
           "\n";
  }

 private:
  std::string characters_;  // one after the other, in order of id
  bool ends_documents_;
  int32_t size_ = 0;
  std::vector<size_t> start_;   // of each id in characters_, and the end
  std::vector<int32_t> id_of_;  // by code point; -1: none
};

nlohmann::json parse(std::string_view text, std::string_view source) {
  require(text.size() <= kLargestFile, source, ": ", text.size(), " bytes, expected at most ", kLargestFile);
  const auto guard = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    require(depth <= kDeepest, source, ": nested deeper than ", kDeepest, " levels: not a tokenizer of this program");
    return true;
  };
  try {
    return nlohmann::json::parse(text, guard);
  } catch (const nlohmann::json::exception& e) {
    throw UserError(agon::text(source, ": expected JSON: ", printable(e.what())));
  }
}

/// Throws UserError unless `characters` is what CharTokenizer takes.
void check_characters(std::string_view characters, std::string_view source) {
  require(!characters.empty(), source, ": \"characters\" is empty");
  int64_t previous = -1;
  for (size_t at = 0; at < characters.size();) {
    const std::string_view c = character(characters, at, source);
    const auto number = int64_t(utf8_decode(c));
    require(number > previous, source, ": \"characters\" is not sorted or repeats '", printable(c), "' at byte ", at);
    previous = number;
    at += c.size();
  }
}

}  // namespace

std::vector<int32_t> Tokenizer::encode(std::string_view text, std::string_view source) const {
  std::vector<int32_t> ids;
  encode(text, source, ids);
  return ids;
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string out;
  for (int32_t id : ids) out += piece(id);
  return out;
}

std::shared_ptr<const Tokenizer> make_byte_tokenizer() { return std::make_shared<ByteTokenizer>(); }

std::shared_ptr<const Tokenizer> make_char_tokenizer(std::span<const std::string> documents,
                                                     std::span<const std::string> sources, bool ends_documents) {
  check(documents.size() == sources.size(), "a source for each document: ", documents.size(), " and ", sources.size());
  std::vector<std::string_view> found(0x110000);
  for (size_t i = 0; i < documents.size(); ++i)
    for (size_t at = 0; at < documents[i].size();) {
      const std::string_view c = character(documents[i], at, sources[i]);
      found[size_t(utf8_decode(c))] = c;
      at += c.size();
    }
  std::string characters;
  for (std::string_view c : found) characters += c;
  require(!characters.empty(), "the training text is empty: no characters to make a vocabulary of");
  return std::make_shared<CharTokenizer>(std::move(characters), ends_documents);
}

std::shared_ptr<const Tokenizer> tokenizer_from_json(std::string_view json, std::string_view source) {
  const nlohmann::json j = parse(json, source);
  require(j.is_object(), source, ": expected a JSON object, found ", j.type_name());
  require(j.contains("kind") && j["kind"].is_string(), source,
          ": no \"kind\": only the tokenizers bytes and chars are supported in this version");
  const std::string kind = j["kind"];
  if (kind == "bytes") return make_byte_tokenizer();
  require(kind == "chars", source, ": \"kind\" is \"", printable(kind),
          "\": only bytes and chars are supported in this version");
  require(j.contains("characters") && j["characters"].is_string(), source, ": expected a string \"characters\"");
  require(j.contains("ends_documents") && j["ends_documents"].is_boolean(), source,
          ": expected true or false for \"ends_documents\"");
  const std::string characters = j["characters"];
  check_characters(characters, source);
  return std::make_shared<CharTokenizer>(characters, j["ends_documents"].get<bool>());
}

std::shared_ptr<const Tokenizer> load_tokenizer(const std::string& path) {
  return tokenizer_from_json(read_file(path, kLargestFile), path);
}

}  // namespace agon
