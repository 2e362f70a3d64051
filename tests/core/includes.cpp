// The architecture, as far as #include lines and file names show it: folders form a line and include only leftwards, a
// router sees only what routers may, a vendor's library stays in the files made for it, every source has a test.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Strings = std::vector<std::string>;

/// Which folders a folder may include, itself excluded.
const std::map<std::string, Strings> kFolders = {
    {"core", {}},
    {"autograd", {"core"}},
    {"ops", {"core", "autograd"}},
    {"distributed", {"core", "autograd"}},
    {"moe", {"core", "autograd", "ops", "distributed"}},
    {"apps", {"core", "autograd", "ops", "distributed", "moe"}},
};

/// What a router file may include of the folder moe; of distributed it may see the communicator in its context.
const Strings kForRouters = {"router",     "routing", "selection", "losses",     "scores",         "experts",
                             "statistics", "weights", "pool",      "thresholds", "unified_scores", "competition"};

/// Foreign headers by how their names start, and the files where they may stand (see matches).
struct Foreign {
  std::string header;
  Strings places;
};
const std::vector<Foreign> kForeign = {
    {"Eigen/", {"ops/*.cpp", "ops/cpu/*.cpp", "ops/cpu/*.h"}},
    {"toml++/", {"apps/"}},
    {"nlohmann/", {"apps/"}},
    {"fmt/", {"apps/"}},
    {"CLI/", {"apps/"}},
    {"mpi.h", {"distributed/modules/mpi.cpp"}},
    {"nccl.h", {"distributed/modules/nccl.cpp"}},
    {"cuda", {"core/*.cu", "core/cuda/*", "autograd/*.cu", "ops/*.cu", "ops/cuda/*", "moe/*.cu", "distributed/*.cu"}},
    {"cublas", {"core/*.cu", "ops/*.cu", "ops/cuda/*", "moe/*.cu"}},
    {"doctest/", {}},
};

bool starts_with(const std::string& s, const std::string& with) { return s.compare(0, with.size(), with) == 0; }
bool ends_with(const std::string& s, const std::string& with) {
  return s.size() >= with.size() && s.compare(s.size() - with.size(), with.size(), with) == 0;
}
bool contains(const Strings& list, const std::string& s) { return std::ranges::find(list, s) != list.end(); }

/// "ops/*.cpp" stands for the files of that folder itself, "apps/" for all below.
bool matches(const std::string& path, const std::string& pattern) {
  if (ends_with(pattern, "/")) return starts_with(path, pattern);
  const size_t star = pattern.find('*');
  if (star == std::string::npos) return path == pattern;
  const std::string folder = pattern.substr(0, star), ending = pattern.substr(star + 1);
  return starts_with(path, folder) && ends_with(path, ending) && path.find('/', folder.size()) == std::string::npos;
}

/// Why the file `path` may not include `header`; "" when it may.
std::string objection(const std::string& path, const std::string& header) {
  for (const Foreign& f : kForeign)
    if (starts_with(header, f.header))
      return std::ranges::any_of(f.places, [&](const std::string& p) { return matches(path, p); }) ? ""
                                                                                                   : "not in this file";
  const std::string own = path.substr(0, path.find('/')), folder = header.substr(0, header.find('/'));
  if (folder == "tests") return "a library does not include its tests";
  if (!kFolders.count(folder)) return "";
  if (folder != own && !contains(kFolders.at(own), folder)) return own + " may not include " + folder;
  if (ends_with(header, ".cuh") && !ends_with(path, ".cu") && !ends_with(path, ".cuh"))
    return "device code, for .cu files";
  if (starts_with(path, "moe/routers/")) {
    if (folder == "distributed" && header != "distributed/communicator.h") return "a router may not include it";
    const std::string own_header = path.substr(0, path.rfind('.')) + ".h";  // of kernels
    if (folder == "moe" && header != own_header && !starts_with(header, "moe/cuda/") &&
        !std::ranges::any_of(kForRouters, [&](auto& name) { return header == "moe/" + name + ".h"; }))
      return "a router may not include it";
  }
  return "";
}

/// All that is wrong with the lines of one file, one sentence each.
Strings violations(const std::string& path, const std::string& contents) {
  Strings found;
  std::istringstream lines(contents);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    const auto say = [&](const std::string& what) {
      found.push_back(path + ":" + std::to_string(number) + ": " + what);
    };
    size_t at = line.find_first_not_of(" \t");
    if (at == std::string::npos || line[at] != '#') continue;
    at = line.find_first_not_of(" \t", at + 1);
    if (at == std::string::npos) continue;
    const std::string directive = line.substr(at);
    if (starts_with(directive, "if") || starts_with(directive, "elif")) {
      const bool allowed = starts_with(path, "core/") || path == "distributed/make.cpp" || ends_with(path, ".cu") ||
                           ends_with(path, ".cuh");
      for (const char* word : {"CUDA", "NCCL", "MPI"})
        if (!allowed && directive.find(word) != std::string::npos)
          say(std::string("a condition on ") + word + ": " + line);
    }
    if (!starts_with(directive, "include")) continue;
    const size_t open = directive.find_first_of("<\""), close = directive.find_last_of(">\"");
    if (open == std::string::npos || close <= open) {
      say("an include that is no name: " + line);
      continue;
    }
    const std::string header = directive.substr(open + 1, close - open - 1);
    if (directive[open] == '"' && !kFolders.count(header.substr(0, header.find('/'))) && !starts_with(header, "tests/"))
      say("\"" + header + "\" does not start with a folder of ours");
    else if (const std::string why = objection(path, header); !why.empty())
      say(header + ": " + why);
  }
  return found;
}

/// The tests that have to be there for these sources and are not.
Strings missing_tests(const std::set<std::string>& files) {
  Strings missing;
  for (const std::string& path : files) {
    const std::string folder = path.substr(0, path.rfind('/'));
    const bool wants_test =
        ends_with(path, ".cpp") && (kFolders.count(folder) || folder == "moe/routers") && path != "apps/main.cpp";
    if (wants_test && !files.count("tests/" + path)) missing.push_back("tests/" + path);
  }
  return missing;
}

const std::filesystem::path kRoot = AGON_SOURCE_DIR;

/// All files of our folders and their tests, relative to the root.
std::set<std::string> our_files() {
  std::set<std::string> files;
  for (const auto& [folder, uses] : kFolders)
    for (const std::string& top : {folder, "tests/" + folder}) {
      if (!std::filesystem::exists(kRoot / top)) continue;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(kRoot / top)) {
        const std::string ending = entry.path().extension().string();
        if (entry.is_regular_file() && contains({".h", ".cpp", ".cu", ".cuh"}, ending))
          files.insert(std::filesystem::relative(entry.path(), kRoot).generic_string());
      }
    }
  return files;
}

std::string joined(const Strings& lines) {
  std::string all;
  for (const std::string& line : lines) all += "\n  " + line;
  return all;
}

}  // namespace

TEST_CASE("includes: every file of the project keeps to the order of the folders") {
  Strings found;
  int seen = 0;
  for (const std::string& path : our_files()) {
    if (starts_with(path, "tests/")) continue;
    ++seen;
    std::ifstream file(kRoot / path);
    const std::string contents((std::istreambuf_iterator<char>(file)), {});
    for (const std::string& line : violations(path, contents)) found.push_back(line);
  }
  INFO(joined(found));
  CHECK(found.empty());
  CHECK(seen > 30);
}

TEST_CASE("includes: every source file has a test of its name") {
  const Strings missing = missing_tests(our_files());
  INFO(joined(missing));
  CHECK(missing.empty());
}

TEST_CASE("includes: the check finds what points to the right") {
  const auto wrong = [](const std::string& path, const std::string& line) {
    return violations(path, "// first\n" + line + "\n").size();
  };
  CHECK(wrong("core/tensor.cpp", "#include \"autograd/tape.h\"") == 1);
  CHECK(wrong("core/tensor.cpp", "#include <autograd/tape.h>") == 1);
  CHECK(wrong("core/tensor.cpp", "  #  include \"autograd/tape.h\"  // why") == 1);
  CHECK(wrong("core/tensor.cpp", "// #include \"autograd/tape.h\"") == 0);
  CHECK(wrong("core/tensor.cpp", "#include \"core/arena.h\"") == 0);
  CHECK(wrong("autograd/tape.cpp", "#include \"ops/linear.h\"") == 1);
  CHECK(wrong("ops/linear.cpp", "#include \"distributed/communicator.h\"") == 1);
  CHECK(wrong("distributed/self.cpp", "#include \"ops/linear.h\"") == 1);
  CHECK(wrong("distributed/self.cpp", "#include \"autograd/tape.h\"") == 0);
  CHECK(wrong("moe/layer.cpp", "#include \"apps/config.h\"") == 1);
  CHECK(wrong("moe/layer.cpp", "#include \"distributed/exchange.h\"") == 0);
  CHECK(wrong("apps/model.cpp", "#include \"moe/layer.h\"") == 0);
  CHECK(wrong("apps/model.cpp", "#include \"tests/support/gradient.h\"") == 1);
  CHECK(wrong("apps/model.cpp", "#include \"model.h\"") == 1);
  CHECK(wrong("apps/model.cpp", "#include \"../moe/layer.h\"") == 1);
  CHECK(wrong("apps/model.cpp", "#include MODEL") == 1);
  CHECK(violations("core/a.h", "#pragma once\n#include \"moe/layer.h\"\n")[0] ==
        "core/a.h:2: moe/layer.h: core may not include moe");
}

TEST_CASE("includes: the check finds routers that see too much") {
  const auto wrong = [](const std::string& header) {
    return violations("moe/routers/competition.cpp", "#include \"" + header + "\"\n").size();
  };
  for (const char* header : {"moe/router.h", "moe/selection.h", "ops/softmax.h", "autograd/tape.h", "core/random.h",
                             "distributed/communicator.h"})
    CHECK(wrong(header) == 0);
  for (const char* header :
       {"moe/layer.h", "moe/dispatch.h", "moe/routers/top_p.h", "distributed/exchange.h", "apps/config.h"})
    CHECK(wrong(header) == 1);
  CHECK(violations("moe/routers/top_p.cpp", "#include \"moe/routers/top_p.h\"\n").empty());
  CHECK(violations("moe/routers/top_p.cu", "#include \"moe/cuda/offsets.cuh\"\n").empty());
}

TEST_CASE("includes: the check finds foreign headers and conditions in the wrong place") {
  const auto wrong = [](const std::string& path, const std::string& line) { return violations(path, line).size(); };
  CHECK(wrong("ops/linear.cpp", "#include <Eigen/Core>") == 0);
  CHECK(wrong("ops/cpu/map.h", "#include <Eigen/Core>") == 0);
  CHECK(wrong("ops/linear.h", "#include <Eigen/Core>") == 1);
  CHECK(wrong("moe/dispatch.cpp", "#include <Eigen/Core>") == 1);
  CHECK(wrong("apps/log.cpp", "#include <fmt/format.h>") == 0);
  CHECK(wrong("apps/domains/json.cpp", "#include <nlohmann/json.hpp>") == 0);
  CHECK(wrong("moe/layer.cpp", "#include <fmt/format.h>") == 1);
  CHECK(wrong("ops/swiglu.cu", "#include \"ops/cuda/vec.cuh\"") == 0);
  CHECK(wrong("ops/swiglu.cpp", "#include \"ops/cuda/vec.cuh\"") == 1);
  CHECK(wrong("ops/cuda/launch.cuh", "#include <cuda_runtime.h>") == 0);
  CHECK(wrong("ops/swiglu.cpp", "#include <cuda_runtime.h>") == 1);
  CHECK(wrong("distributed/modules/nccl.cpp", "#include <nccl.h>") == 0);
  CHECK(wrong("distributed/nccl.cpp", "#include <nccl.h>") == 1);
  CHECK(wrong("distributed/modules/mpi.cpp", "#include <mpi.h>") == 0);
  CHECK(wrong("distributed/mpi.cpp", "#include <mpi.h>") == 1);
  CHECK(wrong("core/device.h", "#ifdef AGON_WITH_CUDA") == 0);
  CHECK(wrong("distributed/make.cpp", "#if defined(AGON_WITH_NCCL)") == 0);
  CHECK(wrong("ops/linear.cpp", "#ifdef AGON_WITH_CUDA") == 1);
  CHECK(wrong("moe/layer.cpp", "# if defined(AGON_WITH_MPI)") == 1);
  CHECK(wrong("apps/doctor.cpp", "#elif AGON_WITH_NCCL") == 1);
}

TEST_CASE("includes: the check finds sources without a test") {
  const std::set<std::string> files = {
      "ops/linear.cpp", "ops/linear.h",      "ops/swiglu.cpp",       "ops/cpu/gemm_avx2.cpp",  "apps/main.cpp",
      "apps/train.cpp", "moe/routers/a.cpp", "tests/ops/linear.cpp", "tests/support/main.cpp", "core/device.h"};
  CHECK(missing_tests(files) == Strings{"tests/apps/train.cpp", "tests/moe/routers/a.cpp", "tests/ops/swiglu.cpp"});
}
