#include "distributed/nccl_open.h"

#include <algorithm>

#include "core/error.h"

namespace agon {

namespace {

constexpr int kOldest = 21801;  // ncclCommSplit
constexpr const char* kFile = "agon_nccl.so";
constexpr const char* kInstall =
    "install libnccl2 and libnccl-dev of NVIDIA's repository (or set NCCL_HOME to a folder with include/nccl.h and "
    "lib/libnccl.so.2) and configure again";

bool contains(const std::string& s, const char* part) { return s.find(part) != std::string::npos; }

}  // namespace

std::string nccl_version_text(int version) {
  return text(version / 10000, '.', version / 100 % 100, '.', version % 100);
}

const NcclLibrary& open_nccl(const std::vector<std::string>& folders) {
  const Module module = open_module(kFile, "agon_nccl", folders);
  require(module.exists, "NCCL is not in this build (", module.path, "): ", kInstall);
  require(module.function, "NCCL cannot be loaded (", module.why, "): ",
          contains(module.why, "libnccl.so")
              ? "install libnccl2 of NVIDIA's repository, or name the folder of libnccl.so.2 in LD_LIBRARY_PATH"
              : kInstall);
  const NcclLibrary& library = *reinterpret_cast<decltype(&agon_nccl)>(module.function)();
  require(library.layout == NcclLibrary::kLayout, module.path, " is of another build of agon (layout ", library.layout,
          ", expected ", NcclLibrary::kLayout, "): build or install both together");
  int version = 0;
  const int code = library.version(&version);
  require(code == NcclLibrary::success, "NCCL does not tell its version: ", explain_nccl(library, code, nullptr));
  require(version >= kOldest, "NCCL ", nccl_version_text(version), " is too old, ", nccl_version_text(kOldest),
          " or newer is needed: ", kInstall);
  return library;
}

std::string nccl_here() {
  try {
    const NcclLibrary& library = open_nccl();
    int version = 0;
    library.version(&version);
    return text(nccl_version_text(version), ", built for ", nccl_version_text(library.built_for), " (",
                open_module(kFile, "agon_nccl", module_folders()).path, ')');
  } catch (const UserError& e) { return text("none: ", e.what()); }
}

std::string explain_nccl(const NcclLibrary& library, int code, void* communicator) {
  const char* const name = library.code_text(code);
  const char* const said = library.last_error(communicator);
  const std::string last = said ? said : "";
  std::string message = text("NCCL: ", name ? name : "unknown error", " (code ", code, ')');
  if (!last.empty()) message += "; it says: " + last;
  while (message.back() == '\n') message.pop_back();
  if (contains(last, "Duplicate GPU"))
    return message +
           "; two ranks were given the same GPU: start no more ranks on a machine than it has GPUs, or, to try several "
           "ranks on one GPU, set NCCL_HOSTID to a different value for each rank (with NCCL_SOCKET_IFNAME=lo and "
           "NCCL_IB_DISABLE=1)";
  if (contains(last, "no CUDA-capable device") || contains(last, "libcuda") || contains(last, "driver"))
    return message +
           "; NCCL needs an NVIDIA GPU and a driver as new as its CUDA: agon doctor shows what is here; ranks without "
           "GPUs work with device = \"cpu\" over MPI";
  if (code == NcclLibrary::remote_error)
    return message + "; another rank has died, or the network between the ranks is broken";
  if (code == NcclLibrary::unhandled_cuda_error || code == NcclLibrary::system_error)
    return message + "; NCCL_DEBUG=INFO in the environment makes NCCL say more";
  return message;
}

}  // namespace agon
