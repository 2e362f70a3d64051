#include "apps/shard_plan.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <tuple>

#include "apps/safetensors_header.h"
#include "core/error.h"

namespace agon {

namespace {

using Json = nlohmann::ordered_json;

/// Smaller ones are not worth a cut.
constexpr int64_t kSmallest = 1 << 20;  // bytes

/// Elements that one of their holders is to write.
struct Piece {
  StoredTensor* tensor;
  const std::string* kind;
  int64_t first, count;
  const std::vector<int>* holders;
  int64_t bytes() const { return count * size_of(tensor->dtype); }
};

/// Pieces by kind, name and range, with the ranks that have them.
using Holders = std::map<std::tuple<std::string, std::string, int64_t, int64_t>, std::vector<int>>;

/// Fills the tables with everything but parts.
Holders collect(std::span<const Offer> offers, TensorTables& tables) {
  Holders holders;
  std::map<const StoredTensor*, int> first_rank;
  for (int rank = 0; rank < int(offers.size()); ++rank) {
    const Offer& offer = offers[size_t(rank)];
    check(offer.step == offers[0].step, "ranks save different steps: rank 0 step ", offers[0].step, ", rank ", rank,
          " step ", offer.step);
    for (const OfferedPart& part : offer.parts) {
      const auto [at, fresh] = tables.at(part.kind).try_emplace(part.name, StoredTensor{part.dtype, part.whole, {}});
      const StoredTensor& tensor = at->second;
      if (fresh) first_rank[&tensor] = rank;
      check(tensor.dtype == part.dtype && tensor.shape == part.whole, "ranks disagree on tensor ", in_quotes(part.name),
            ": ", tensor.dtype, ' ', tensor.shape, " on rank ", first_rank[&tensor], ", ", part.dtype, ' ', part.whole,
            " on rank ", rank);
      if (part.count == 0 && part.whole.size() > 0) continue;
      std::vector<int>& ranks = holders[{part.kind, part.name, part.first, part.count}];
      check(ranks.empty() || ranks.back() != rank, "tensor ", in_quotes(part.name), ": elements ", part.first, " to ",
            part.first + part.count, " twice on rank ", rank);
      ranks.push_back(rank);
    }
  }
  return holders;
}

/// Pieces of about equal size, none larger than `limit` bytes where several ranks could write it.
std::vector<Piece> cut(const Holders& holders, TensorTables& tables, int64_t limit) {
  std::vector<Piece> pieces;
  for (const auto& [key, ranks] : holders) {
    const auto& [kind, name, first, count] = key;
    const Piece whole{&tables.at(kind).at(name), &kind, first, count, &ranks};
    const int64_t n = ranks.size() == 1 ? 1 : std::max<int64_t>(1, (whole.bytes() + limit - 1) / limit);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t begin = count / n * i + std::min(i, count % n), length = count / n + (i < count % n);
      pieces.push_back({whole.tensor, whole.kind, first + begin, length, whole.holders});
    }
  }
  return pieces;
}

}  // namespace

std::string to_text(const Offer& offer) try {
  Json parts = Json::array();
  for (const OfferedPart& p : offer.parts)
    parts.push_back({p.kind, p.name, name_of(p.dtype), extents_of(p.whole), p.first, p.count});
  return Json({{"step", offer.step}, {"parts", parts}}).dump();
} catch (const Json::type_error&) { throw Error("a tensor's name is not valid UTF-8"); }

Offer offer_from_text(const std::string& text) {
  const Json json = Json::parse(text);
  Offer offer{json.at("step").get<int64_t>(), {}};
  for (const Json& p : json.at("parts"))
    offer.parts.push_back({p.at(0).get<std::string>(), p.at(1).get<std::string>(),
                           dtype_named(p.at(2).get<std::string>()), shape_of(p.at(3).get<std::vector<int64_t>>()),
                           p.at(4).get<int64_t>(), p.at(5).get<int64_t>()});
  return offer;
}

std::string ShardPlan::file(const std::string& kind, int rank, int ranks) const {
  if (one_file) return kind + ".safetensors";
  char numbers[32];
  std::snprintf(numbers, sizeof numbers, "-%05d-of-%05d", rank + 1, ranks);
  return kind + numbers + ".safetensors";
}

ShardPlan plan_shards(std::span<const Offer> offers) {
  const int ranks = int(offers.size());
  ShardPlan plan;
  for (const char* kind : kTensorKinds) plan.tables[kind];
  plan.one_file = ranks == 1 && std::ranges::all_of(offers[0].parts, [](const OfferedPart& part) {
                    return part.first == 0 && part.count == part.whole.size();
                  });
  const Holders holders = collect(offers, plan.tables);
  int64_t total = 0;
  for (const auto& [key, by] : holders)
    total += std::get<3>(key) * size_of(plan.tables.at(std::get<0>(key)).at(std::get<1>(key)).dtype);
  std::vector<Piece> pieces = cut(holders, plan.tables, std::max(kSmallest, total / ranks / 4));
  // What only one rank can write comes first; then the largest, each to the holder that has least to write.
  std::ranges::stable_sort(pieces, [](const Piece& a, const Piece& b) {
    const bool a_shared = a.holders->size() > 1, b_shared = b.holders->size() > 1;
    return a_shared != b_shared ? b_shared : a_shared && a.bytes() > b.bytes();
  });
  std::vector<int64_t> load(size_t(ranks), 0);
  for (const Piece& piece : pieces) {
    const int rank = *std::ranges::min_element(*piece.holders, {}, [&](int r) { return load[size_t(r)]; });
    load[size_t(rank)] += piece.bytes();
    piece.tensor->parts.push_back({plan.file(*piece.kind, rank, ranks), piece.first, piece.count});
  }
  for (auto& [kind, table] : plan.tables)
    for (auto& [name, tensor] : table) {
      std::ranges::sort(tensor.parts, {}, [](const StoredPart& p) { return std::tie(p.first, p.file, p.count); });
      if (const auto missing = gap(tensor))
        throw Error(text("tensor ", in_quotes(name), ": no rank has elements ", missing->first, " to ", missing->second,
                         " of ", tensor.shape));
    }
  return plan;
}

}  // namespace agon
