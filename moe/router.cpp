#include "moe/router.h"

#include <cmath>

#include "core/copy.h"

namespace agon {

std::map<std::string, double> Figures::read() const {
  std::map<std::string, double> found;
  if (!values) return found;
  const Tensor here = on_host(values);
  const auto value = here.data<const double>();
  for (size_t i = 0; i < names.size(); ++i)
    if (!std::isnan(value[i])) found[names[i]] = value[i];
  return found;
}

Parameter make_gate(const RouterSize& size) {
  Parameter gate({size.experts, size.width}, in_master(size.precision));
  gate.init = Init::normal;
  gate.deviation = size.deviation;
  gate.decays = true;
  return gate;
}

std::map<std::string, RouterOptionsFactory>& routers() {
  static std::map<std::string, RouterOptionsFactory> all;
  return all;
}

std::unique_ptr<RouterOptions> make_router_options(const std::string& strategy) {
  const auto found = routers().find(strategy);
  std::string known;
  for (const auto& [name, make] : routers()) known += (known.empty() ? "" : ", ") + name;
  require(found != routers().end(), "no routing strategy is called \"", strategy, "\"; known are ", known);
  return found->second();
}

RegisterRouter::RegisterRouter(const char* name, RouterOptionsFactory make) {
  check(routers().emplace(name, std::move(make)).second, "two routers are called ", name);
}

}  // namespace agon
