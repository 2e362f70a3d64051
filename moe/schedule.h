#pragma once
#include <cstdint>
#include <map>
#include <vector>

#include "moe/router.h"

namespace agon {

/// Which layers compete in which steps (CompeteSMoE; ROUTING.md section 5): made once before training from the seed, so
/// that all ranks have the same, and saved. For each layer in order and each step after the warm-up a draw decides; a
/// hit on a step in which `cap` layers compete already moves to the nearest earlier step with room that this layer does
/// not use, else to the nearest later one. A draw belongs to (seed, layer, step): a longer training has the same.
class CompetitionSchedule {
 public:
  struct Layer {
    int64_t warm_up = 0;          // steps without competition at the start
    std::vector<int64_t> events;  // steps in which it competes, ascending
  };
  /// What a checkpoint keeps.
  struct State {
    int64_t steps = 0, lost = 0;  // steps drawn so far, events that found no room
    std::map<int, Layer> layers;  // by index of the block
  };

  CompetitionSchedule() = default;  // nobody ever competes
  /// `rates`: of each competing layer. The cap is the smallest max_layers among them. Throws UserError when it cannot
  /// hold the expected events, naming the smallest that can.
  CompetitionSchedule(const std::map<int, CompetitionRate>& rates, int64_t steps, uint64_t seed);
  /// Goes on from what was saved; steps after those are drawn anew: their events move only among them, and the warm-ups
  /// keep their first length. Throws UserError naming `source` when other layers compete now.
  CompetitionSchedule(const std::map<int, CompetitionRate>& rates, int64_t steps, uint64_t seed, State saved,
                      const std::string& source);

  bool competes(int layer, int64_t step) const;
  int64_t cap() const { return cap_; }
  const State& state() const { return state_; }

 private:
  void draw(int64_t first, int64_t last);

  std::map<int, CompetitionRate> rates_;
  State state_;
  int64_t cap_ = 0;
  uint64_t seed_ = 0;
};

}  // namespace agon
