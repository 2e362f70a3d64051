#include "moe/schedule.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/random.h"

namespace agon {

namespace {

constexpr uint64_t kScheduleStream = 0x636f6d7065746500;

bool hit(uint64_t seed, int layer, int64_t step, double rate) {
  const RandomKey key = RandomKey{seed, kScheduleStream}.with(uint64_t(layer));
  return double(uniform(philox(key, uint64_t(step))[0])) < rate;
}

/// The smallest cap among the layers, which must hold the events to be expected of a step.
int64_t cap_of(const std::map<int, CompetitionRate>& rates) {
  double expected = 0;
  int64_t cap = rates.empty() ? 0 : rates.begin()->second.max_layers;
  for (const auto& [layer, rate] : rates) {
    expected += rate.rate;
    cap = std::min(cap, rate.max_layers);
  }
  expected -= 1e-9;  // of rounding: thirty layers at a rate of 0.1 are 3
  require(expected <= double(cap), "moe.router.max_layers = ", cap, " cannot keep the events of ", rates.size(),
          " competing layers, ", expected, " of which are to be expected in a step: use at least ",
          int64_t(std::ceil(expected)), ", or a smaller moe.router.rate");
  return cap;
}

}  // namespace

CompetitionSchedule::CompetitionSchedule(const std::map<int, CompetitionRate>& rates, int64_t steps, uint64_t seed)
    : rates_(rates), cap_(cap_of(rates)), seed_(seed) {
  for (const auto& [layer, rate] : rates) state_.layers[layer].warm_up = int64_t(rate.warm_up * double(steps));
  draw(0, steps);
}

CompetitionSchedule::CompetitionSchedule(const std::map<int, CompetitionRate>& rates, int64_t steps, uint64_t seed,
                                         State saved, const std::string& source)
    : rates_(rates), state_(std::move(saved)), cap_(cap_of(rates)), seed_(seed) {
  const auto names = [](const auto& layers) {
    std::string all;
    for (const auto& [layer, value] : layers) all += (all.empty() ? "" : ", ") + std::to_string(layer);
    return all.empty() ? "none" : all;
  };
  require(names(rates) == names(state_.layers), source, ": its schedule has competing layers ", names(state_.layers),
          ", expected ", names(rates));
  if (steps > state_.steps) draw(state_.steps, steps);
}

void CompetitionSchedule::draw(int64_t first, int64_t last) {
  std::map<int64_t, int64_t> competing;  // layers in each step in which any does
  for (auto& [index, layer] : state_.layers) {
    const int64_t begin = std::max(first, layer.warm_up);
    std::set<int64_t> used;
    for (int64_t s = begin; s < last; ++s)
      if (hit(seed_, index, s, rates_.at(index).rate)) used.insert(s);
    const auto has_room = [&](int64_t s) {
      const auto found = competing.find(s);
      return found == competing.end() || found->second < cap_;
    };
    const std::vector<int64_t> hits(used.begin(), used.end());
    for (const int64_t wanted : hits) {
      int64_t at = wanted;
      if (!has_room(at)) {
        const auto free = [&](int64_t s) { return has_room(s) && !used.contains(s); };
        while (at >= begin && !free(at)) --at;
        if (at < begin)
          for (at = wanted + 1; at < last && !free(at);) ++at;
        used.erase(wanted);
        if (at == last) {
          ++state_.lost;
          continue;
        }
        used.insert(at);
      }
      ++competing[at];
    }
    layer.events.insert(layer.events.end(), used.begin(), used.end());
  }
  state_.steps = std::max(state_.steps, last);
}

bool CompetitionSchedule::competes(int layer, int64_t step) const {
  const auto found = state_.layers.find(layer);
  return found != state_.layers.end() && std::ranges::binary_search(found->second.events, step);
}

}  // namespace agon
