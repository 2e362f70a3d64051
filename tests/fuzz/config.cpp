// A config: what is taken is dumped to a text that is taken again and dumps alike.
#include "apps/config_dump.h"
#include "apps/config_file.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace agon;
  return testing::refuses_or_takes(data, size, [](std::string_view bytes) {
    const Config config = parse_config(bytes, "fuzz.toml");
    std::string text;
    try {
      text = dump(parse_config(dump(config), "dump.toml"));
    } catch (const UserError& e) { throw Error(agon::text("a dump is refused: ", e.what())); }
    const auto values = [](std::string dumped) {  // without where each came from
      std::string kept;
      for (size_t at = 0, end; at < dumped.size(); at = end + 1) {
        end = std::min(dumped.find('\n', at), dumped.size());
        kept += dumped.substr(at, std::min(dumped.find(" #", at), end) - at) + '\n';
      }
      return kept;
    };
    check(values(text) == values(dump(config)), "a dump reads back as something else");
  });
}
