#include "distributed/nccl_open.h"

#include <doctest/doctest.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "core/gpu.h"
#include "distributed/nccl.h"
#include "tests/distributed/fake_nccl.h"
#include "tests/support/ranks.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

bool has_module() { return std::filesystem::exists(std::string(AGON_BINARY_DIR) + "/agon_nccl.so"); }

std::string explained(int code, const std::string& last) {
  FakeNccl::fresh().said = last;
  return explain_nccl(FakeNccl::library(), code, nullptr);
}

}  // namespace

TEST_CASE("nccl open: without the module, or with one that cannot be loaded, it says what to install") {
  const TemporaryFolder folder;
  const std::string missing = message_of([&] { open_nccl({folder.path()}); });
  CHECK(missing.find("NCCL is not in this build (agon_nccl.so is in none of " + folder.path() + ")") == 0);
  CHECK(missing.find("install libnccl2 and libnccl-dev") != std::string::npos);
  CHECK_THROWS_AS(open_nccl({folder.path()}), UserError);
  put(folder / "agon_nccl.so", "not a library");
  CHECK(message_of([&] { open_nccl({folder.path()}); }).find("NCCL cannot be loaded (") == 0);
}

TEST_CASE("nccl open: versions in words") {
  CHECK(nccl_version_text(22809) == "2.28.9");
  CHECK(nccl_version_text(21801) == "2.18.1");
}

TEST_CASE("nccl open: what the codes mean and what to do") {
  CHECK(explained(NcclLibrary::invalid_usage, "Duplicate GPU detected : rank 0 and rank 1 both on CUDA device 1b000\n")
            .find("set NCCL_HOSTID to a different value for each rank") != std::string::npos);
  CHECK(explained(NcclLibrary::unhandled_cuda_error, "Cuda failure 'no CUDA-capable device is detected'")
            .find("NCCL needs an NVIDIA GPU and a driver") != std::string::npos);
  CHECK(explained(NcclLibrary::remote_error, "").find("NCCL: remote process exited (code 6); another rank has died") ==
        0);
  CHECK(explained(NcclLibrary::system_error, "Call to connect failed").find("NCCL_DEBUG=INFO") != std::string::npos);
  CHECK(explained(NcclLibrary::invalid_argument, "") == "NCCL: an error (code 4)");
}

TEST_CASE("nccl open: the module of this build loads and has a version" * doctest::skip(!has_module())) {
  const NcclLibrary& library = open_nccl();
  int version = 0;
  CHECK(library.version(&version) == NcclLibrary::success);
  CHECK(version >= 21801);
  CHECK(library.built_for >= 21801);
  CHECK(nccl_here().find(nccl_version_text(version) + ", built for ") == 0);
  CHECK(nccl_here().find("agon_nccl.so)") != std::string::npos);
  char id[NcclLibrary::kIdBytes] = {};
  CHECK(library.make_id(id) == NcclLibrary::success);
}

TEST_CASE("nccl open: where there is no GPU, NCCL's own start says so, and what is needed" *
          doctest::skip(!has_module() || !find_gpus().found.empty())) {
  const NcclLibrary& library = open_nccl();
  char id[NcclLibrary::kIdBytes] = {};
  REQUIRE(library.make_id(id) == NcclLibrary::success);
  void* communicator = nullptr;
  int code = library.open(&communicator, 1, id, 0);
  for (int i = 0; i < 1000 && communicator && code == NcclLibrary::in_progress; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    library.state(communicator, &code);
  }
  CHECK(code == NcclLibrary::unhandled_cuda_error);
  const std::string why = explain_nccl(library, code, communicator);
  CHECK_MESSAGE(
      why.find("NCCL needs an NVIDIA GPU and a driver as new as its CUDA: agon doctor shows") != std::string::npos,
      why);
  if (communicator) library.abort(communicator);
}

TEST_CASE("nccl open: where there is no GPU, the communicator is refused with the reason" *
          doctest::skip(!has_module() || !find_gpus().found.empty())) {
  NcclOptions options;
  options.control = make_self_communicator();
  const std::string why = message_of([&] { make_nccl_communicator(std::move(options)); });
  CHECK_MESSAGE(why.find("device = \"cuda\": " + find_gpus().why_none) == 0, why);
}
