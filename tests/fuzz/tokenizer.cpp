// A tokenizer's file: what is taken writes itself as it was read, and gives back the text of its own pieces.
#include "apps/tokenizer.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace agon;
  return testing::refuses_or_takes(data, size, [](std::string_view bytes) {
    const auto tokenizer = tokenizer_from_json(bytes, "fuzz.json");
    check(tokenizer_from_json(tokenizer->json(), "again")->json() == tokenizer->json(),
          "a tokenizer reads back as another");
    for (int32_t id = 0; id < tokenizer->vocabulary(); ++id)
      if (tokenizer->kind() == "chars")
        check(tokenizer->decode(tokenizer->encode(tokenizer->piece(id))) == tokenizer->piece(id),
              "a piece is not its own text");
  });
}
