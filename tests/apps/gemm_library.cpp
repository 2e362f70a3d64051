#include "apps/gemm_library.h"

#include <doctest/doctest.h>

#include "core/copy.h"
#include "ops/linear.h"
#include "tests/apps/run_folder.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("gemm library: what is missing is said with the package that has it") {
  const Folder folder;
  const GemmLibraries none = find_gemm_libraries(folder.path.string());
  CHECK(none.found.empty());
  REQUIRE(none.missing.size() == 2);
  CHECK(none.missing[0].find("OpenBLAS is not in this build") != std::string::npos);
  CHECK(none.missing[0].find("apt-get install libopenblas-dev") != std::string::npos);
  CHECK(none.missing[1].find("apt-get install libdnnl-dev") != std::string::npos);
  std::ofstream(folder.path / "agon_onednn.so") << "not a library";
  const GemmLibraries broken = find_gemm_libraries(folder.path.string());
  CHECK(broken.found.empty());
  CHECK(broken.missing[1].find("oneDNN cannot be loaded (") != std::string::npos);
}

TEST_CASE("gemm library: those of this build give our products") {
  for (const GemmLibrary* library : find_gemm_libraries(AGON_BINARY_DIR).found) {
    CAPTURE(library->name);
    CHECK(std::string(library->version()).size() > 3);
    for (const int threads : {1, 2}) {
      library->set_threads(threads);
      const Tensor x = random({5, 7}, 1, 1, DType::f32), w = random({3, 7}, 2, 1, DType::f32);
      Tensor y({5, 3}, DType::f32);
      library->f32(5, 3, 7, x.data<const float>().data(), w.data<const float>().data(), y.data<float>().data());
      CHECK(relative_error(y, linear(x, w)) < 1e-6);
      if (!library->bf16) continue;
      const Tensor bx = converted(x, DType::bf16), bw = converted(w, DType::bf16);
      Tensor by({5, 3}, DType::bf16);
      library->bf16(5, 3, 7, static_cast<const uint16_t*>(bx.address()), static_cast<const uint16_t*>(bw.address()),
                    static_cast<uint16_t*>(by.address()));
      CHECK(relative_error(by, linear(bx, bw)) < 1e-2);
    }
  }
}
