#include "moe/router.h"

namespace agon {

std::map<std::string, RouterOptionsFactory>& routers() {
  static std::map<std::string, RouterOptionsFactory> all;
  return all;
}

RegisterRouter::RegisterRouter(const char* name, RouterOptionsFactory make) {
  check(routers().emplace(name, std::move(make)).second, "two routers are called ", name);
}

}  // namespace agon
