#include <doctest/doctest.h>

#include "core/gpu.h"
#include "tests/apps/run_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("doctor: says what is here and why something is not") {
  const Folder folder;
  const Quiet quiet((folder.path / "out").string());
  CHECK(doctor() == 0);
  CHECK((quiet.text().find("GPU           none: ") != std::string::npos) == find_gpus().found.empty());
  CHECK((quiet.text().find("\ncuda:0 ") != std::string::npos) == !find_gpus().found.empty());
  for (const char* what : {"processor ", "kernels", "threads ", "GFLOP/s", "CUDA ", "NCCL ", "\nMPI           ", "self, threads"})
    CHECK(quiet.text().find(what) != std::string::npos);
}
