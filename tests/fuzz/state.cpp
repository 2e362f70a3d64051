// The state of a training, from a checkpoint's manifest.
#include "apps/training_state.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace agon;
  return testing::refuses_or_takes(data, size, [](std::string_view bytes) {
    const TrainingState state = TrainingState::from_json(std::string(bytes), "fuzz.json");
    check(TrainingState::from_json(state.json(), "again").json() == state.json(),
          "a state reads back as something else");
  });
}
