#include "apps/keys.h"

#include <algorithm>
#include <array>
#include <iomanip>

#include "apps/config_sections.h"
#include "apps/nearest.h"
#include "apps/utf8.h"

namespace agon {

namespace {

constexpr size_t kColumns = 5;
using Row = std::array<std::string, kColumns>;

struct Table {
  std::string title;
  std::vector<Row> rows;
};

Table table_of(const std::string& title, const std::vector<Option>& options) {
  Table table{title, {}};
  for (const Option& option : options) {
    const std::string range = range_of(option);
    table.rows.push_back({option.name, type_of(option), toml_of(option), range.empty() ? "any" : range, option.help});
  }
  return table;
}

/// The tables of a section: one, but one per strategy for [moe.router].
void append_tables(std::vector<Table>& tables, const ConfigSection& section) {
  if (section.name != "moe.router") {
    tables.push_back(
        table_of(section.name.empty() ? "(outside every section)" : "[" + section.name + "]", section.options));
    return;
  }
  for (const auto& [name, make] : routers()) {
    RouterChoice choice = router_named(name);
    tables.push_back(
        table_of("[moe.router] with strategy = \"" + name + "\"", router_section(section.name, choice).options));
  }
  const Row index{"index", "integer", "", ">= 0",
                  "the block; the other keys are those of [moe.router], whose values they replace"};
  tables.push_back({"[[moe.layer]], any number of times", {index}});
}

void print(std::ostream& out, const std::vector<Table>& tables) {
  const Row header{"key", "type", "default", "range", "meaning"};
  std::array<size_t, kColumns> width{};
  const auto widen = [&](const Row& row) {
    for (size_t i = 0; i < kColumns; ++i) width[i] = std::max(width[i], row[i].size());
  };
  const auto line = [&](const Row& row) {
    out << "  ";
    for (size_t i = 0; i + 1 < kColumns; ++i) out << std::left << std::setw(int(width[i]) + 2) << row[i];
    out << row.back() << '\n';
  };
  widen(header);
  for (const Table& table : tables) std::ranges::for_each(table.rows, widen);
  line(header);
  for (const Table& table : tables) {
    out << '\n' << table.title << '\n';
    std::ranges::for_each(table.rows, line);
  }
}

}  // namespace

void print_keys(std::ostream& out, const std::string& section) {
  std::vector<std::string> names = section_names();
  const std::string wanted = section == "moe.layer" ? "moe.router" : section;  // they have the same keys
  require(wanted.empty() || std::ranges::count(names, wanted), "keys: unknown section \"", printable(section), '"',
          suggestion(section, names));
  Config everything = specimen();
  std::vector<Table> tables;
  for (const ConfigSection& known : sections_of(everything)) {
    if (wanted.empty() || known.name == wanted || known.name.starts_with(wanted + ".")) append_tables(tables, known);
  }
  print(out, tables);
}

}  // namespace agon
