#pragma once
#include <cstdint>
#include <string>
#include <vector>

// Matrix products of other libraries, to be measured beside our own. Each is a module of its own (tools/peers/gemm),
// made where CMake finds the library and opened by name, so that the program neither needs nor loads what it does not
// use.

namespace agon {

/// What such a module has. Matrices are row-major and without gaps.
struct GemmLibrary {
  const char* name;
  const char* (*version)();
  void (*set_threads)(int n);
  /// y = x wᵀ: x [m, k], w [n, k], y [m, n].
  void (*f32)(int64_t m, int64_t n, int64_t k, const float* x, const float* w, float* y);
  /// The same of bf16, as its bits; null where the library has none.
  void (*bf16)(int64_t m, int64_t n, int64_t k, const uint16_t* x, const uint16_t* w, uint16_t* y);
};

struct GemmLibraries {
  std::vector<const GemmLibrary*> found;
  std::vector<std::string> missing;  // a sentence for each, with the Debian package that has it
};

/// Opens the modules that lie in `folder`. They stay open.
GemmLibraries find_gemm_libraries(const std::string& folder);

/// Where this program lies.
std::string program_folder();

}  // namespace agon

/// The one function of a module.
extern "C" const agon::GemmLibrary* agon_gemm_library();
