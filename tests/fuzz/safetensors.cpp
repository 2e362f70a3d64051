// The header of a safetensors file, and the whole file behind it: what is taken lies within the data, one tensor after
// the other.
#include <algorithm>

#include "apps/safetensors_header.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace agon;
  if (size < 2) return 0;
  const uint64_t data_bytes = uint64_t(data[0]) | uint64_t(data[1]) << 8;
  return testing::refuses_or_takes(data + 2, size - 2, [&](std::string_view bytes) {
    SafetensorsHeader header = parse_header(bytes, data_bytes, "fuzz.safetensors");
    std::ranges::sort(header.tensors, {}, [](const TensorEntry& t) { return std::pair(t.begin, t.end); });
    uint64_t end = 0;
    for (const TensorEntry& t : header.tensors) {
      check(t.begin == end && t.end - t.begin == uint64_t(t.shape.size() * size_of(t.dtype)),
            "a hole or an overlap was taken");
      end = t.end;
    }
    check(end == data_bytes, "bytes that no tensor has were taken");
    make_header(header.tensors, header.metadata);
  });
}
