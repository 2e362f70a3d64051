#include "apps/toml.h"

#include <toml++/toml.h>

#include <optional>

#include "apps/utf8.h"
#include "core/error.h"

namespace agon {

namespace {

constexpr std::string_view kLayers = "moe.layer", kCommandLine = "command line";

Place place_of(const toml::source_region& region, const std::string& name) {
  return {name, int64_t(region.begin.line), int64_t(region.begin.column)};
}

std::string kind_of(const toml::node& node) {
  if (node.is_table()) return "a table";
  if (node.is_array_of_tables()) return "an array of tables";
  if (node.is_array()) return "an array";
  if (node.is_date()) return "a date";
  return node.is_time() ? "a time" : "a date and time";
}

Setting setting_of(const toml::node& node, Place place) {
  if (const auto* v = node.as_integer()) return {v->get(), std::move(place)};
  if (const auto* v = node.as_floating_point()) return {v->get(), std::move(place)};
  if (const auto* v = node.as_boolean()) return {v->get(), std::move(place)};
  if (const auto* v = node.as_string()) return {v->get(), std::move(place)};
  return {Unsupported{kind_of(node)}, std::move(place)};
}

/// Sorts a document's keys into sections.
struct Reader {
  std::string name;
  Settings settings;

  void section(const std::string& path, const toml::table& table, const Place& place) {
    SettingsSection& mine = settings[path];
    mine.place = place;
    for (const auto& [key, node] : table) {
      const std::string at(key.str()), below = path.empty() ? at : path + "." + at;
      const Place here = place_of(key.source(), name);
      if (below == kLayers) {
        layers(node, here);
      } else if (const toml::table* nested = node.as_table()) {
        section(below, *nested, here);
      } else {
        mine.keys[at] = setting_of(node, here);
      }
    }
  }

  void layers(const toml::node& node, const Place& place) {
    require(node.is_array_of_tables(), place.exact(),
            ": moe.layer: expected tables in double brackets, [[moe.layer]], each with an index");
    for (const toml::node& element : *node.as_array()) layer(*element.as_table());
  }

  void layer(const toml::table& table) {
    const Place place = place_of(table.source(), name);
    const toml::node* index = table.get("index");
    require(index, place.exact(), ": moe.layer: no index; expected index = the block this table is for");
    require(index->is_integer() && index->as_integer()->get() >= 0, place_of(index->source(), name).exact(),
            ": moe.layer.index: expected an integer >= 0");
    const std::string path = text(kLayers, '.', index->as_integer()->get());
    require(!settings.contains(path), place.exact(),
            ": moe.layer: a second table with index = ", index->as_integer()->get(), "; expected one per block");
    section(path, table, place);
    settings[path].keys.erase("index");
  }
};

/// The value of an override when it is one TOML value and nothing else.
std::optional<Setting> toml_value(const std::string& value, const Place& place) {
  try {
    const toml::table table = toml::parse("value = " + value);
    if (table.size() == 1 && table.contains("value")) return setting_of(*table.get("value"), place);
  } catch (const toml::parse_error&) {
    return {};  // a bare word or a path: the caller takes it as a string
  }
  return {};
}

std::string trimmed(const std::string& s) {
  const size_t begin = s.find_first_not_of(' ');
  return begin == s.npos ? "" : s.substr(begin, s.find_last_not_of(' ') + 1 - begin);
}

}  // namespace

Settings parse_toml(std::string_view toml, const std::string& name) {
  try {
    Reader reader{name, {}};
    reader.section("", toml::parse(toml), Place{name, 1, 1});
    return std::move(reader.settings);
  } catch (const toml::parse_error& e) {
    throw UserError(text(place_of(e.source(), name).exact(), ": ", printable(e.description())));
  }
}

void add_override(Settings& settings, const std::string& override_text) {
  const std::string shown = printable(override_text);
  const size_t equals = override_text.find('=');
  require(equals != override_text.npos, kCommandLine, ": found \"", shown, "\", expected key=value");
  const std::string key = trimmed(override_text.substr(0, equals)), value = override_text.substr(equals + 1);
  require(!key.empty(), kCommandLine, ": found no key in \"", shown, "\", expected key=value");
  const Place place{std::string(kCommandLine)};
  const size_t dot = key.rfind('.');
  const std::string path = dot == key.npos ? "" : key.substr(0, dot);
  auto [section, added] = settings.try_emplace(path);
  if (added) section->second.place = place;
  section->second.keys[dot == key.npos ? key : key.substr(dot + 1)] =
      toml_value(value, place).value_or(Setting{value, place});
}

}  // namespace agon
