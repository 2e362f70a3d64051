#include <cblas.h>

#include <array>

#include "apps/gemm_library.h"

namespace {

/// Its version, and for which processor it has chosen kernels.
const char* version() {
  static const std::string described = std::string(openblas_get_config()) + ", kernels of " + openblas_get_corename();
  return described.c_str();
}

void f32(int64_t m, int64_t n, int64_t k, const float* x, const float* w, float* y) {
  const auto [rows, columns, inner] = std::array{blasint(m), blasint(n), blasint(k)};
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, columns, inner, 1, x, inner, w, inner, 0, y, columns);
}

constexpr agon::GemmLibrary kLibrary = {"openblas", version, openblas_set_num_threads, f32, nullptr};

}  // namespace

extern "C" const agon::GemmLibrary* agon_gemm_library() { return &kLibrary; }
