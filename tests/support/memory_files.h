#pragma once
#include <fcntl.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "apps/file_system.h"

namespace agon::testing {

/// A file system in memory that knows what a power cut would leave: a file's contents are safe after fsync of the file,
/// a folder's names after fsync of the folder, as POSIX promises and no more.
class MemoryFiles : public FileSystem {
 public:
  MemoryFiles() = default;
  /// Another disk with the same on it.
  MemoryFiles(const MemoryFiles& other) : root_(copied(*other.root_)) {}

  int open(const char* path, int flags, mode_t) override {
    Node* folder = nullptr;
    std::string name;
    std::shared_ptr<Node> node = find(path, &folder, &name);
    if (!node && (flags & O_CREAT) && folder) folder->names[name] = node = std::make_shared<Node>();
    if (!node) return fail(ENOENT);
    if (node->folder && (flags & O_WRONLY)) return fail(EISDIR);
    if (!node->folder && (flags & O_DIRECTORY)) return fail(ENOTDIR);
    if (flags & O_TRUNC) node->data.clear();
    open_[++last_] = node;
    return last_;
  }
  int close(int file) override { return open_.erase(file) ? 0 : fail(EBADF); }
  ssize_t pread(int file, void* to, size_t bytes, off_t at) override {
    const std::string& data = open_.at(file)->data;
    const size_t begin = std::min(size_t(at), data.size()), n = std::min(bytes, data.size() - begin);
    if (n) std::memcpy(to, data.data() + begin, n);
    return ssize_t(n);
  }
  ssize_t write(int file, const void* from, size_t bytes) override {
    open_.at(file)->data.append(static_cast<const char*>(from), bytes);
    return ssize_t(bytes);
  }
  int fsync(int file) override {
    Node& node = *open_.at(file);
    node.safe_data = node.data;
    node.safe_names = node.names;
    return 0;
  }
  int fstat(int file, struct stat* s) override { return fill(*open_.at(file), s); }
  int lstat(const char* path, struct stat* s) override {
    const auto node = find(path);
    return node ? fill(*node, s) : fail(ENOENT);
  }
  int rename(const char* from, const char* to) override {
    Node *source = nullptr, *target = nullptr;
    std::string name, wanted;
    const auto node = find(from, &source, &name), there = find(to, &target, &wanted);
    if (!node || !target) return fail(ENOENT);
    if (there && there->folder && !there->names.empty()) return fail(ENOTEMPTY);
    source->names.erase(name);
    target->names[wanted] = node;
    return 0;
  }
  int unlink(const char* path) override { return remove(path, false); }
  int rmdir(const char* path) override { return remove(path, true); }
  int mkdir(const char* path, mode_t) override {
    Node* folder = nullptr;
    std::string name;
    if (find(path, &folder, &name)) return fail(EEXIST);
    if (!folder) return fail(ENOENT);
    (folder->names[name] = std::make_shared<Node>())->folder = true;
    return 0;
  }
  int list(const char* path, std::vector<std::string>* names) override {
    const auto node = find(path);
    if (!node) return fail(ENOENT);
    names->clear();
    for (const auto& [name, entry] : node->names) names->push_back(name);
    return 0;
  }
  void forget(int) override {}

  /// What a power cut leaves: all that was not synced is lost, or only contents (`names_last`: a file system that
  /// writes its journal before the data), or each with a coin of its own.
  enum class Cut { nothing_lost, all_lost, contents_lost, coins };
  void cut_power(Cut cut, uint64_t seed) {
    open_.clear();
    uint64_t state = seed * 2 + 1;
    settle(*root_, cut, state);
  }

 private:
  struct Node {
    bool folder = false;
    std::string data, safe_data;
    std::map<std::string, std::shared_ptr<Node>> names, safe_names;
  };

  static std::shared_ptr<Node> copied(const Node& node) {
    std::map<const Node*, std::shared_ptr<Node>> done;
    const std::function<std::shared_ptr<Node>(const Node&)> copy = [&](const Node& from) {
      std::shared_ptr<Node>& to = done[&from];
      if (to) return to;
      auto made = to = std::make_shared<Node>(Node{from.folder, from.data, from.safe_data, {}, {}});
      for (const auto& [name, child] : from.names) made->names[name] = copy(*child);
      for (const auto& [name, child] : from.safe_names) made->safe_names[name] = copy(*child);
      return made;
    };
    return copy(node);
  }
  static int fail(int code) { return errno = code, -1; }
  static int fill(const Node& node, struct stat* s) {
    *s = {};
    s->st_mode = node.folder ? S_IFDIR : S_IFREG;
    s->st_size = off_t(node.data.size());
    return 0;
  }
  std::shared_ptr<Node> find(const std::string& path, Node** folder = nullptr, std::string* name = nullptr) {
    std::shared_ptr<Node> node = root_;
    for (size_t at = 0; at < path.size();) {
      const size_t slash = std::min(path.find('/', at), path.size());
      const std::string part = path.substr(at, slash - at);
      at = slash + 1;
      if (part.empty() || part == ".") continue;
      if (!node || !node->folder) {
        if (folder) *folder = nullptr;
        return nullptr;
      }
      if (folder) *folder = node.get();
      if (name) *name = part;
      const auto next = node->names.find(part);
      node = next == node->names.end() ? nullptr : next->second;
    }
    return node;
  }
  int remove(const char* path, bool folder) {
    Node* parent = nullptr;
    std::string name;
    const auto node = find(path, &parent, &name);
    if (!node) return fail(ENOENT);
    if (node->folder != folder) return fail(folder ? ENOTDIR : EISDIR);
    if (folder && !node->names.empty()) return fail(ENOTEMPTY);
    parent->names.erase(name);
    return 0;
  }
  static bool lost(Cut cut, bool contents, uint64_t& state) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    if (cut == Cut::coins) return (state >> 40) & 1;
    return cut == Cut::all_lost || (cut == Cut::contents_lost && contents);
  }
  static void settle(Node& node, Cut cut, uint64_t& state) {
    if (lost(cut, true, state)) node.data = node.safe_data;
    if (lost(cut, false, state)) node.names = node.safe_names;
    node.safe_data = node.data;
    node.safe_names = node.names;
    for (auto& [name, child] : node.names) settle(*child, cut, state);
  }

  std::shared_ptr<Node> root_ = [] {
    auto root = std::make_shared<Node>();
    root->folder = true;
    return root;
  }();
  std::map<int, std::shared_ptr<Node>> open_;
  int last_ = 2;
};

}  // namespace agon::testing
