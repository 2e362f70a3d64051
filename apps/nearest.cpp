#include "apps/nearest.h"

#include <algorithm>
#include <array>

namespace agon {

int64_t edit_distance(std::string_view a, std::string_view b) {
  const size_t n = b.size();
  std::vector<int64_t> two_up, up(n + 1), row(n + 1);  // rows i - 2, i - 1 and i of the table
  for (size_t j = 0; j <= n; ++j) row[j] = int64_t(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    two_up = up;
    up = row;
    row[0] = int64_t(i);
    for (size_t j = 1; j <= n; ++j) {
      row[j] = std::min({up[j] + 1, row[j - 1] + 1, up[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], two_up[j - 2] + 1);
    }
  }
  return row[n];
}

std::string nearest(std::string_view name, const std::vector<std::string>& known) {
  constexpr size_t kLongest = 200;  // the table is quadratic, and no name is longer
  if (name.size() > kLongest) return {};
  std::string best;
  int64_t least = std::max<int64_t>(2, int64_t(name.size()) / 2) + 1;
  for (const std::string& candidate : known) {
    const int64_t distance = edit_distance(name, candidate);
    if (distance < least && distance < int64_t(std::max(name.size(), candidate.size())))
      least = distance, best = candidate;
  }
  return best;
}

std::string suggestion(std::string_view name, const std::vector<std::string>& known) {
  if (const std::string meant = nearest(name, known); !meant.empty()) return "; did you mean \"" + meant + "\"?";
  return known.empty() ? "; there are none" : "; known are " + joined(known);
}

std::string joined(const std::vector<std::string>& names, std::string_view between) {
  std::string all;
  for (const std::string& name : names) {
    if (!all.empty()) all += between;
    all += name;
  }
  return all;
}

}  // namespace agon
