#include "moe/leaving.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/parallel.h"
#include "moe/two_sources.h"

namespace agon {

namespace {

constexpr int32_t kNone = TwoSources::kNone;
constexpr int64_t kTokens = 512;  // of a task

}  // namespace

Leaving::Leaving(std::span<const int32_t> expert, std::span<const int32_t> token_offsets, int64_t experts, int ranks,
                 int own)
    : expert_(expert),
      token_offset_(token_offsets),
      owner_(static_cast<size_t>(experts)),
      number_(static_cast<size_t>(experts)),
      ranks_(size_t(ranks)),
      own_(own),
      stride_((ranks_ + 7) / 8 * 8),  // a cache line for each block
      next_(blocks() * stride_),
      totals_(ranks_) {
  const auto each = int32_t(experts / ranks);
  for (int32_t e = 0; e < int32_t(experts); ++e) owner_[size_t(e)] = e / each, number_[size_t(e)] = e % each;
  count();
}

size_t Leaving::blocks() const { return size_t((tokens() + kTokens - 1) / kTokens); }

void Leaving::each_block(auto&& f) const {
  parallel_ranges(tokens(), kTokens, [&](int64_t begin, int64_t end) { f(size_t(begin / kTokens), begin, end); });
}

void Leaving::count() {
  each_block([&](size_t block, int64_t begin, int64_t end) {
    Place* const of_rank = next_.data() + block * stride_;
    std::vector<int64_t> last(ranks_, -1);  // token with a row for the rank
    for (int64_t t = begin; t < end; ++t)
      for (int32_t i = token_offset_[size_t(t)]; i < token_offset_[size_t(t) + 1]; ++i) {
        const int32_t e = expert_[size_t(i)];
        check(e >= 0 && size_t(e) < owner_.size(), "pair ", i, " names expert ", e, ", there are ", owner_.size());
        const auto r = size_t(owner_[size_t(e)]);
        ++of_rank[r].pairs;
        of_rank[r].rows += std::exchange(last[r], t) != t;
      }
  });
  for (size_t r = 0; r < ranks_; ++r)
    for (size_t b = 0; b < blocks(); ++b) {
      const Place n = std::exchange(next_[b * stride_ + r], totals_[r]);
      totals_[r] = {totals_[r].rows + n.rows, totals_[r].pairs + n.pairs};
    }
}

int64_t Leaving::fill(const Lists& to) {
  std::vector<int64_t> beyond(blocks());
  to.visit_offsets[0] = to.stay_offsets[0] = 0;
  each_block([&](size_t block, int64_t begin, int64_t end) {
    beyond[block] = fill_block(to, next_.data() + block * stride_, begin, end);
  });
  return std::accumulate(beyond.begin(), beyond.end(), int64_t(0));
}

int64_t Leaving::fill_block(const Lists& to, Place* next, int64_t begin, int64_t end) const {
  int64_t beyond = 0;
  int32_t visited = 0;
  for (size_t r = 0; r < ranks_; ++r) visited += next[r].rows;
  std::vector<Visit> visit_of(ranks_);  // the last token's, of each rank
  std::vector<int32_t> ranks;           // that have experts of a token's
  for (int64_t t = begin; t < end; ++t) {
    const auto first = size_t(token_offset_[size_t(t)]), last = size_t(token_offset_[size_t(t) + 1]);
    ranks.clear();
    for (size_t i = first; i < last; ++i) {
      const int32_t r = owner_[size_t(expert_[i])];
      Visit& visit = visit_of[size_t(r)];
      if (visit.token != t) {
        visit = {.token = t};
        ranks.push_back(r);
      }
      ++visit.pairs;
    }
    std::ranges::sort(ranks);
    for (const int32_t rank : ranks) {
      const auto r = size_t(rank);
      Visit& visit = visit_of[r];
      const Place here = next[r];
      next[r] = {here.rows + 1, here.pairs + visit.pairs};
      int32_t& row = to.visits[size_t(visited++)];
      if (rank == own_) {
        row = ~int32_t(t);
        visit.slot = here.pairs;
      } else if (here.rows < to.bounds.rows && next[r].pairs <= to.bounds.pairs) {
        row = to.first_row[r] + here.rows;
        to.rows[size_t(row)] = int32_t(t);
        visit.slot = to.first_pair[r] + here.pairs;
      } else {
        row = visit.slot = kNone;
        beyond += visit.pairs;
      }
    }
    for (size_t i = first; i < last; ++i) {
      const auto e = size_t(expert_[i]);
      Visit& visit = visit_of[size_t(owner_[e])];
      if (visit.slot == kNone) {
        to.homes[i] = kNone;
        continue;
      }
      const auto slot = size_t(visit.slot++);
      if (owner_[e] == own_) {
        to.homes[i] = ~int32_t(slot);
        to.stay[slot] = ~int32_t(i);
        to.experts_of_stay[slot] = number_[e];
      } else {
        to.homes[i] = int32_t(slot);
        to.pairs[slot] = int32_t(i);
        to.wanted[slot] = std::exchange(visit.begun, true) ? number_[e] : ~number_[e];
      }
    }
    to.visit_offsets[size_t(t) + 1] = visited;
    to.stay_offsets[size_t(t) + 1] = own_ < 0 ? 0 : next[own_].pairs;
  }
  return beyond;
}

}  // namespace agon
