// LAYER.toml of `agon probe`.
#include "apps/probe_layer.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace agon;
  return testing::refuses_or_takes(data, size, [](std::string_view bytes) { parse_probe_layer(bytes, "fuzz.toml"); });
}
