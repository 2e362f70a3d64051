#include "ops/embedding.h"

#include <vector>

#include "ops/cpu/map.h"
#include "ops/parameter_gradient.h"

namespace agon {

namespace {

/// The positions of each token, ascending: those of token v are order[first[v]] ... order[first[v + 1] - 1].
struct Occurrences {
  std::vector<int32_t> first, order;

  Occurrences(std::span<const int32_t> token, int64_t vocabulary) : first(size_t(vocabulary) + 1), order(token.size()) {
    for (int32_t v : token) ++first[size_t(v) + 1];
    for (size_t v = 0; v < size_t(vocabulary); ++v) first[v + 1] += first[v];
    std::vector<int32_t> next(first.begin(), first.end() - 1);
    for (size_t t = 0; t < token.size(); ++t) order[size_t(next[size_t(token[t])]++)] = int32_t(t);
  }
};

}  // namespace

void Embedding::Forward::cpu(const Tensor& y, const Tensor& table, const Tensor& token) {
  const auto id = token.data<const int32_t>();
  const int64_t vocabulary = table.shape(0), width = table.shape(1);
  for (int32_t v : id)
    require(v >= 0 && v < vocabulary, "embedding: token ", v, " is not in a vocabulary of ", vocabulary);
  visit_float(table.dtype(), [&]<class T>() {
    const T* const rows = table.data<const T>().data();
    T* const out = y.data<T>().data();
    cpu::each_row(int64_t(id.size()), width,
                  [=](int64_t t) { std::copy_n(rows + id[size_t(t)] * width, width, out + t * width); });
  });
}

void Embedding::Backward::cpu(const Tensor& dtable, bool add, const Tensor& dy, const Tensor& token) {
  const int64_t vocabulary = dtable.shape(0), width = dtable.shape(1);
  const Occurrences found(token.data<const int32_t>(), vocabulary);
  visit_float(dtable.dtype(), [&]<class G>() {
    visit_float(dy.dtype(), [&]<class T>() {
      using A = Accumulator<T>;
      const T* const slope = dy.data<const T>().data();
      G* const out = dtable.data<G>().data();
      cpu::each_row(vocabulary, width, [&](int64_t v) {
        G* const row = out + v * width;
        const int32_t begin = found.first[size_t(v)], end = found.first[size_t(v) + 1];
        if (begin == end) {
          if (!add) std::fill_n(row, width, G(0.f));
          return;
        }
        std::vector<A> total(size_t(width), A(0));
        if (add) std::copy_n(row, width, total.begin());
        for (int32_t i = begin; i < end; ++i) {
          const T* const from = slope + found.order[size_t(i)] * width;
          for (int64_t d = 0; d < width; ++d) total[size_t(d)] += A(from[d]);
        }
        for (int64_t d = 0; d < width; ++d) row[d] = G(total[size_t(d)]);
      });
    });
  });
}

Tensor embedding(const Tensor& table, const Tensor& token) {
  check(table.shape().rank() == 2 && token.shape().rank() == 1 && token.dtype() == DType::i32,
        "embedding: expected a table [V, D] and tokens [T] i32, got ", table.shape(), " and ", token.dtype(), ' ',
        token.shape());
  Tensor y({token.shape(0), table.shape(1)}, table.dtype(), table.device());
  run<Embedding::Forward>(table.device(), y, table, token);
  return record("embedding", {&table}, y, [table, token](Gradients& g, const Tensor& dy) {
    give_gradient(g, table, [&](const Tensor& dtable, bool add) {
      run<Embedding::Backward>(dy.device(), dtable, add, dy, token);
    });
  });
}

}  // namespace agon
