#include "distributed/module.h"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>

#include "core/error.h"

namespace agon {

namespace {

namespace fs = std::filesystem;

/// The folder of the program or library that this code was linked into.
fs::path own_folder() {
  static const char anchor = 0;
  Dl_info info{};
  if (!dladdr(&anchor, &info) || !info.dli_fname) return {};
  std::error_code unreadable;
  return fs::canonical(info.dli_fname, unreadable).parent_path();
}

}  // namespace

std::vector<std::string> module_folders() {
  std::vector<std::string> folders;
  std::error_code unreadable;
  for (const fs::path& folder : {fs::read_symlink("/proc/self/exe", unreadable).parent_path(), own_folder()}) {
    if (folder.empty()) continue;
    // Build folders have the program, or a test program one folder further down; installed are PREFIX/bin/agon,
    // PREFIX/LIB/libagon.so and PREFIX/LIB/agon/*.so.
    for (const fs::path& place :
         {folder, folder.parent_path(), folder / "agon", folder.parent_path() / AGON_LIBRARY_FOLDER / "agon"})
      if (std::ranges::find(folders, place.string()) == folders.end()) folders.push_back(place.string());
  }
  return folders;
}

Module open_module(const std::string& file, const std::string& function, const std::vector<std::string>& folders,
                   bool global) {
  Module module;
  std::string places;
  for (const std::string& folder : folders) {
    const std::string path = folder + '/' + file;
    places += (places.empty() ? "" : ", ") + folder;
    std::error_code unreadable;
    if (!fs::exists(path, unreadable)) continue;
    module.exists = true;
    module.path = path;
    if (void* const opened = dlopen(path.c_str(), RTLD_NOW | (global ? RTLD_GLOBAL : RTLD_LOCAL)))
      module.function = dlsym(opened, function.c_str());
    if (!module.function) {
      const char* const why = dlerror();
      module.why = why ? why : "no reason given";
    }
    return module;
  }
  module.path = file + " is in none of " + places;
  return module;
}

}  // namespace agon
