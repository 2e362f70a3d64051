#include "apps/corpus.h"

#include <algorithm>
#include <filesystem>
#include <limits>

#include "apps/domains.h"
#include "apps/file_system.h"
#include "core/error.h"

namespace agon {

namespace {

constexpr std::string_view kBuiltin = "builtin:";
constexpr uint64_t kBuiltinSeed = 1;  // runs with different seeds see the same text

/// Every file below a folder, sorted by path. Names that begin with a dot belong to tools (.git), not to the text.
std::vector<std::string> files_below(const std::string& folder) {
  namespace fs = std::filesystem;
  std::vector<std::string> paths;
  std::error_code error;
  fs::recursive_directory_iterator it(folder, error), end;
  require(!error, folder, ": cannot be read: ", error.message());
  for (; it != end; it.increment(error)) {
    if (it->path().filename().string().starts_with('.')) {
      it.disable_recursion_pending();
    } else if (!it->is_directory(error)) {
      paths.push_back(it->path().string());
    }
    require(!error, it->path().string(), ": cannot be read: ", error.message());
  }
  require(!error, folder, ": cannot be read: ", error.message());
  require(!paths.empty(), folder, ": the folder holds no files");
  std::sort(paths.begin(), paths.end());
  return paths;
}

void add_file(Documents& to, const std::string& path, const std::string& separator) {
  std::error_code error;  // a file that is missing or out of reach is read_file's to name
  const bool other = std::filesystem::is_other(path, error);
  require(!other, path, ": expected a text file, found a device, pipe or socket");
  std::string content = read_file(path, std::numeric_limits<int64_t>::max());
  require(!content.empty(), path, ": the file is empty");
  const size_t nul = content.find('\0');
  require(nul == std::string::npos, path, ": expected text, found a NUL byte at offset ", nul,
          " (binary data, or UTF-16)");
  if (separator.empty()) {
    to.text.push_back(std::move(content));
    to.source.push_back(path);
    return;
  }
  int64_t number = 0;
  for (size_t from = 0; from <= content.size();) {
    const size_t found = content.find(separator, from), to_here = std::min(found, content.size());
    if (to_here > from) {
      to.text.push_back(content.substr(from, to_here - from));
      to.source.push_back(text(path, ", document ", ++number));
    }
    if (found == std::string::npos) break;
    from = found + separator.size();
  }
  require(number > 0, path, ": the file holds nothing but separators");
}

Documents builtin(const std::string& where, const DataOptions& options) {
  require(where == "builtin:domains", "data: there is no corpus \"", where,
          "\"; the built-in one is \"builtin:domains\"");
  Documents documents;
  for (Document& d : builtin_domains(options.builtin_bytes, kBuiltinSeed)) {
    documents.source.push_back(text(where, ", document ", documents.text.size() + 1));
    documents.text.push_back(std::move(d.text));
  }
  return documents;
}

/// FNV-1a on 64-bit words, each mixed down first so that high bits reach low ones.
class Hash {
 public:
  void add(uint64_t word) {
    word ^= word >> 32;
    state_ = (state_ ^ word) * 0x100000001b3u;
    state_ ^= state_ >> 29;
  }
  void add(std::string_view bytes) {
    add(bytes.size());
    for (char c : bytes) add(uint64_t(uint8_t(c)));
  }
  void add(const std::vector<int32_t>& ids) {
    add(ids.size());
    for (int32_t id : ids) add(uint64_t(uint32_t(id)));
  }
  uint64_t value() const { return state_; }

 private:
  uint64_t state_ = 0xcbf29ce484222325u;
};

std::shared_ptr<const Tokenizer> make_tokenizer(const std::string& kind, const Documents& train,
                                                const Documents& valid) {
  if (kind == "bytes") return make_byte_tokenizer();
  if (kind != "chars") return load_tokenizer(kind);
  return make_char_tokenizer(train.text, train.source, train.text.size() > 1 || valid.text.size() > 1);
}

}  // namespace

Documents read_documents(const std::string& where, const DataOptions& options) {
  require(!where.empty(), "data: expected the path of a text, found an empty string");
  if (where.starts_with(kBuiltin)) return builtin(where, options);
  Documents documents;
  std::error_code error;
  if (std::filesystem::is_directory(where, error)) {
    for (const std::string& path : files_below(where)) add_file(documents, path, options.separator);
  } else {
    add_file(documents, where, options.separator);
  }
  return documents;
}

Tokens tokenize(Documents documents, std::string source, const Tokenizer& tokenizer) {
  Tokens tokens{{}, std::move(source)};
  size_t bytes = 0;
  for (const std::string& document : documents.text) bytes += document.size() + 1;
  tokens.id.reserve(bytes);
  for (size_t i = 0; i < documents.text.size(); ++i) {
    tokenizer.encode(documents.text[i], documents.source[i], tokens.id);
    if (tokenizer.end_of_document() >= 0) tokens.id.push_back(tokenizer.end_of_document());
    std::string().swap(documents.text[i]);  // text and tokens need not both be whole in memory
  }
  tokens.id.shrink_to_fit();
  return tokens;
}

Corpus load_corpus(const DataOptions& options, std::shared_ptr<const Tokenizer> saved) {
  Corpus corpus;
  Documents train = read_documents(options.train, options), valid;
  if (!options.valid.empty()) valid = read_documents(options.valid, options);
  corpus.tokenizer = saved ? std::move(saved) : make_tokenizer(options.tokenizer, train, valid);
  corpus.train = tokenize(std::move(train), options.train, *corpus.tokenizer);
  if (options.valid.empty()) {
    std::vector<int32_t>& all = corpus.train.id;
    const auto kept = std::ptrdiff_t(double(all.size()) * (1 - options.valid_share));
    corpus.valid = {{all.begin() + kept, all.end()},
                    text("the last ", options.valid_share * 100, " % of ", options.train)};
    all.erase(all.begin() + kept, all.end());
  } else {
    corpus.valid = tokenize(std::move(valid), options.valid, *corpus.tokenizer);
  }
  const size_t found = corpus.valid.id.size();
  require(found >= 2 || (options.valid.empty() && options.valid_share == 0), corpus.valid.source, ": ", found,
          " tokens to validate on, expected at least 2",
          options.valid.empty() ? "; raise data.valid_share or give data.valid" : "");
  Hash hash;
  hash.add(corpus.tokenizer->json());
  hash.add(corpus.train.id);
  hash.add(corpus.valid.id);
  corpus.fingerprint = hash.value();
  return corpus;
}

Tokens load_tokens(const std::string& where, const DataOptions& options, const Tokenizer& tokenizer) {
  return tokenize(read_documents(where, options), where, tokenizer);
}

}  // namespace agon
