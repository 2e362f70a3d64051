#include "apps/probe_layer.h"

#include <algorithm>

#include "apps/config_apply.h"
#include "apps/config_sections.h"
#include "apps/file_system.h"
#include "apps/nearest.h"
#include "apps/toml.h"
#include "apps/utf8.h"

namespace agon {

namespace {

/// The sections a layer's file may have, with their keys; of [moe.router] those of the default strategy.
std::vector<ConfigSection> sections_of_layer(ProbeLayer& layer) {
  layer.config = specimen();
  MoeConfig& moe = layer.config.moe;
  return {{"", options_of(layer)}, {"moe", options_of(moe.layer)}, router_section("moe.router", moe.router)};
}

[[noreturn]] void refuse_key(const ConfigSection& section, const std::string& key, const Setting& setting,
                             const std::vector<ConfigSection>& all) {
  const std::string at = setting.place.exact() + ": " + section.path(printable(key));
  const bool is_section = section.name.empty() && key == "moe";
  require(!is_section, at, ": found ", found(setting), ", expected the section [moe] with keys of its own");
  const bool placement = section.name == "moe" && (key == "every" || key == "first_dense");
  require(!placement, at, ": says which blocks of a model have experts; a layer's file has one layer");
  for (const ConfigSection& other : all) {
    const bool elsewhere = other.name != section.name && std::ranges::count(other.options, key, &Option::name) > 0;
    require(!elsewhere || !other.name.empty(), at, ": unknown key in [", section.name, "]; did you mean \"", key,
            "\" before the first section?");
    require(!elsewhere, at, ": unknown key; did you mean \"", other.path(key), "\"?");
  }
  std::vector<std::string> keys;
  for (const Option& option : section.options) keys.push_back(option.name);
  throw UserError(
      text(at, ": unknown key", section.name.empty() ? "" : " in [" + section.name + "]", suggestion(key, keys)));
}

/// Refuses sections and keys that a model's config may have and a layer's file not, and unknown ones. Those of
/// [moe.router] depend on the strategy and are left to make_config, except what belongs before the first section.
void check_names(const Settings& settings) {
  ProbeLayer specimen;
  const std::vector<ConfigSection> known = sections_of_layer(specimen);
  for (const auto& [name, section] : settings) {
    const std::string at = section.place.exact();
    require(!name.starts_with("moe.layer."), at,
            ": [[moe.layer]]: a layer's file has one layer; expected [moe.router]");
    const auto mine = std::ranges::find(known, name, &ConfigSection::name);
    if (mine == known.end()) {
      for (const ConfigSection& other : known) {
        for (const Option& option : other.options)
          require(other.path(option.name) != name, at, ": ", name, " is a key, found a section; expected ",
                  expected_of(option));
      }
      throw UserError(
          text(at, ": unknown section [", printable(name), "]", suggestion(name, {known[1].name, known[2].name})));
    }
    for (const auto& [key, setting] : section.keys) {
      const bool misplaced = std::ranges::count(known.front().options, key, &Option::name) > 0;
      if (name == "moe.router" && !misplaced) continue;
      if (!std::ranges::count(mine->options, key, &Option::name)) refuse_key(*mine, key, setting, known);
    }
  }
}

void validate(const ProbeLayer& layer) {
  const Config& c = layer.config;
  require(c.origin.contains("width"), layer.source, ": no width; expected width = the numbers of a token");
  require(layer.dtype != "f64" || c.parsed_device().kind == Device::cpu, c.named("dtype"),
          ": f64 exists on the CPU only; expected f32 or bf16 on ", c.device);
  c.validate_layer();
  require(layer.mode != "compete" || c.moe.router.options->competition(), c.named("mode"),
          ": \"compete\", but with the strategy \"", c.moe.router.strategy,
          "\" experts never compete; expected train, eval or eval_noncausal");
}

}  // namespace

void ProbeLayer::visit(OptionVisitor& v) {
  v("width", width, Range::within(1, 1e6), "numbers per token");
  v("dtype", dtype, {"f64", "f32", "bf16"},
    "of the inputs and the experts; the router computes in f32, or f64 under f64");
  v("device", config.device, {}, "where to compute: cpu, cuda (the first GPU) or cuda:N (GPU N, counted from 0)");
  v("seed", config.seed, Range::at_least(0), "of what the tensors given lack");
  v("mode", mode, {"train", "compete", "eval", "eval_noncausal"},
    "train; compete: train, on a step on which the layer competes; eval: causal; eval_noncausal: sees later tokens");
}

Precision ProbeLayer::numbers() const {
  if (dtype == "f64") return Precision::f64();
  return dtype == "bf16" ? Precision::bf16() : Precision::fp32();
}

RouterContext ProbeLayer::context() const {
  RouterContext context;
  context.mode = mode == "eval" ? Mode::eval : mode == "eval_noncausal" ? Mode::eval_noncausal : Mode::train;
  context.compete = mode == "compete";
  context.seed = uint64_t(config.seed);
  return context;
}

ProbeLayer load_probe_layer(const std::string& path) {
  constexpr uint64_t kLimit = 1 << 20;  // far above any layer's file: what is larger is another kind of file
  return parse_probe_layer(read_file(path, kLimit), path);
}

ProbeLayer parse_probe_layer(std::string_view toml, const std::string& name) {
  Settings settings = parse_toml(toml, name);
  check_names(settings);
  const SettingsSection top = std::move(settings[""]);
  settings.erase("");
  settings.try_emplace("moe", SettingsSection{top.place, {}});  // there are experts even where nothing is said of them
  ProbeLayer layer;
  layer.source = name;
  layer.config = make_config(settings);
  for (const Option& option : options_of(layer)) {
    const auto setting = top.keys.find(option.name);
    if (setting == top.keys.end()) continue;
    store(option, option.name, setting->second);
    layer.config.origin[option.name] = setting->second.place.origin();
  }
  validate(layer);
  return layer;
}

}  // namespace agon
