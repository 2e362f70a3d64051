#include "apps/step_numbers.h"

#include <cmath>
#include <map>

#include "core/copy.h"
#include "moe/statistics.h"

namespace agon {

void add_up(const StepLog& log, std::span<const NumbersOfMicro> micros, StepReport& r) {
  const double share = 1.0 / double(micros.size());
  int64_t competing = 0;  // layers, counted in every micro-batch
  // The figures, and the layers (counted by their micro-batches' shares) that have each; and all with experts.
  std::map<std::string, std::pair<double, double>> routing;
  double layers = 0;
  std::vector<std::vector<double>> load(micros.front().layers.size());
  for (const NumbersOfMicro& m : micros) {
    r.loss += log.value(m.loss);
    std::map<std::string, std::pair<double, int>> seen;  // sum and number of layers
    for (const NumbersOfMicro::Layer& layer : m.layers)
      for (const auto& [name, place] : layer.losses) {
        auto& [sum, number] = seen[name];
        sum += log.value(place);
        ++number;
      }
    for (const auto& [name, figure] : seen) r.losses[name] += share * figure.first / figure.second;
    for (size_t i = 0; i < m.layers.size(); ++i) {
      const NumbersOfMicro::Layer& layer = m.layers[i];
      if (layer.load.count == 0) continue;
      const auto pairs = log.at(layer.load), values = log.at(layer.values);
      load[i].resize(pairs.size());
      for (size_t e = 0; e < pairs.size(); ++e) load[i][e] += pairs[e];
      for (size_t n = 0; n < layer.figures.size(); ++n) {
        if (std::isnan(values[n])) continue;  // does not occur in this micro-batch
        competing += layer.figures[n] == "agreement";
        auto& [sum, weight] = routing[layer.figures[n]];
        sum += values[n] * share;
        weight += share;
      }
      layers += share;
    }
  }
  for (auto& of_layer : load)
    if (!of_layer.empty()) r.load.push_back(std::move(of_layer));
  for (const auto& [name, figure] : routing)  // a number of experts that no token of a layer has counts as 0 there
    r.routing[name] = figure.first / (name.starts_with("tokens_with_") ? layers : figure.second);
  r.dropped = r.routing["dropped"];
  r.competing = competing / int64_t(micros.size());
  std::map<std::string, double> loads;  // of the whole step's, not of its micro-batches'
  for (const auto& of_layer : r.load)
    for (const auto& [name, value] : load_figures(tensor_of(of_layer))) loads[name] += value / double(r.load.size());
  for (const auto& [name, value] : loads) r.routing[name] = value;
}

}  // namespace agon
