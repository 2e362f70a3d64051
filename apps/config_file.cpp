#include "apps/config_file.h"

#include "apps/config_apply.h"
#include "apps/file_system.h"
#include "apps/toml.h"

namespace agon {

Config load_config(const std::string& path, std::span<const std::string> overrides) {
  constexpr uint64_t kLimit = 1 << 20;  // far above any config: what is larger is another kind of file
  return parse_config(read_file(path, kLimit), path, overrides);
}

Config parse_config(std::string_view toml, const std::string& name, std::span<const std::string> overrides) {
  Settings settings = parse_toml(toml, name);
  for (const std::string& text : overrides) add_override(settings, text);
  Config config = make_config(settings);
  config.validate();
  return config;
}

}  // namespace agon
