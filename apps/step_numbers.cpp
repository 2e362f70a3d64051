#include "apps/step_numbers.h"

#include <cmath>
#include <map>

#include "core/copy.h"
#include "moe/statistics.h"

namespace agon {

namespace {

/// What is summed over the micro-batches of all ranks. Figures come with the layers, counted by their micro-batches'
/// shares, that have them.
struct Sums {
  int64_t competing = 0;  // layers, counted in every micro-batch
  std::map<std::string, std::pair<double, double>> routing;
  double layers = 0;  // all with experts
  std::vector<std::vector<double>> load;
};

void add(const StepLog& log, const NumbersOfMicro& m, int rank, double share, Sums& sums, StepReport& r) {
  r.loss += log.value(m.loss, rank);
  std::map<std::string, std::pair<double, int>> seen;  // sum and number of layers
  for (const NumbersOfMicro::Layer& layer : m.layers)
    for (const auto& [name, place] : layer.losses) {
      auto& [sum, number] = seen[name];
      sum += log.value(place, rank);
      ++number;
    }
  for (const auto& [name, figure] : seen) r.losses[name] += share * figure.first / figure.second;
  for (size_t i = 0; i < m.layers.size(); ++i) {
    const NumbersOfMicro::Layer& layer = m.layers[i];
    if (layer.load.count == 0) continue;
    const auto pairs = log.at(layer.load, rank), values = log.at(layer.values, rank);
    sums.load[i].resize(pairs.size());
    for (size_t e = 0; e < pairs.size(); ++e) sums.load[i][e] += pairs[e];
    for (size_t n = 0; n < layer.figures.size(); ++n) {
      if (std::isnan(values[n])) continue;  // does not occur in this micro-batch
      sums.competing += layer.figures[n] == "agreement";
      auto& [sum, weight] = sums.routing[layer.figures[n]];
      sum += values[n] * share;
      weight += share;
    }
    sums.layers += share;
  }
}

}  // namespace

void add_up(const StepLog& log, std::span<const NumbersOfMicro> micros, StepReport& r) {
  const int64_t parts = int64_t(micros.size()) * log.ranks();
  Sums sums;
  sums.load.resize(micros.front().layers.size());
  for (const NumbersOfMicro& m : micros)
    for (int rank = 0; rank < log.ranks(); ++rank) add(log, m, rank, 1.0 / double(parts), sums, r);
  for (auto& of_layer : sums.load)
    if (!of_layer.empty()) r.load.push_back(std::move(of_layer));
  for (const auto& [name, figure] : sums.routing)  // a number of experts that no token of a layer has counts as 0 there
    r.routing[name] = figure.first / (name.starts_with("tokens_with_") ? sums.layers : figure.second);
  r.dropped = r.routing["dropped"];
  r.competing = sums.competing / parts;
  std::map<std::string, double> loads;  // of the whole step's, not of its micro-batches'
  for (const auto& of_layer : r.load)
    for (const auto& [name, value] : load_figures(tensor_of(of_layer))) loads[name] += value / double(r.load.size());
  for (const auto& [name, value] : loads) r.routing[name] = value;
}

}  // namespace agon
