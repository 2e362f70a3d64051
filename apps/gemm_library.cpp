#include "apps/gemm_library.h"

#include <dlfcn.h>

#include <filesystem>

#include "core/error.h"

namespace agon {

namespace {

struct Module {
  const char* file;     // as third_party/*.cmake make it
  const char* library;  // as people call it
  const char* package;  // of Debian
};
constexpr Module kModules[] = {{"agon_openblas.so", "OpenBLAS", "libopenblas-dev"},
                               {"agon_onednn.so", "oneDNN", "libdnnl-dev"}};

}  // namespace

GemmLibraries find_gemm_libraries(const std::string& folder) {
  GemmLibraries libraries;
  for (const Module& m : kModules) {
    const std::string path = folder + '/' + m.file;
    if (!std::filesystem::exists(path)) {
      libraries.missing.push_back(text(m.library, " is not in this build (", path, " does not exist): apt-get install ",
                                       m.package, ", then configure again"));
      continue;
    }
    void* const module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    const auto get =
        module ? reinterpret_cast<decltype(&agon_gemm_library)>(dlsym(module, "agon_gemm_library")) : nullptr;
    if (get) {
      libraries.found.push_back(get());
    } else {
      const char* const why = dlerror();
      libraries.missing.push_back(
          text(m.library, " cannot be loaded (", why ? why : path, "): apt-get install ", m.package));
    }
  }
  return libraries;
}

std::string program_folder() { return std::filesystem::read_symlink("/proc/self/exe").parent_path().string(); }

}  // namespace agon
