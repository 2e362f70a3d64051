// manifest.json of a checkpoint, sealed, so that what is behind the seal is reached, in a file system in memory.
#include "apps/manifest.h"
#include "apps/checksum.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/memory_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace agon;
  return testing::refuses_or_takes(data, size, [](std::string_view bytes) {
    testing::MemoryFiles files;
    files.mkdir("c", 0777);
    const int file = files.open("c/manifest.json", O_CREAT | O_WRONLY, 0666);
    Checksum checksum;
    checksum.update(bytes.data(), bytes.size());
    const std::string sealed = std::string(bytes) + ",\n  \"seal\": \"" + hexadecimal(checksum.value()) + "\"\n}\n";
    files.write(file, sealed.data(), sealed.size());
    files.close(file);
    const Manifest manifest = read_manifest("c", files);
    verify_files("c", manifest, true, files);
  });
}
