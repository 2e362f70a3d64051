#pragma once
#include "ops/reference.h"

namespace agon::reference {

// ---- rope: x [T, H, d], position [T] i32; direction -1 turns back, which is the gradient

inline Tensor rope(const Tensor& x, const Tensor& position, double theta, int direction = 1) {
  const int64_t heads = x.shape(1), width = x.shape(2), half = width / 2;
  Tensor y(x.shape(), DType::f64);
  for (int64_t t = 0; t < x.shape(0); ++t)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < half; ++i) {
        const int64_t at = (t * heads + h) * width + i;
        const double angle = direction * position.data<int32_t>()[t] * std::pow(theta, -2 * double(i) / double(width));
        const double a = x.data<double>()[at], b = x.data<double>()[at + half];
        y.data<double>()[at] = a * std::cos(angle) - b * std::sin(angle);
        y.data<double>()[at + half] = a * std::sin(angle) + b * std::cos(angle);
      }
  return y;
}

// ---- attention, causal: q [Tq, H, d], k and v [Tk, G, d]; offsets [B + 1] i32 cut queries and keys into sequences

/// Calls f(query row, head, first key row, weights of the keys it sees) for every query and head.
template <class F>
void each_query(const Tensor& q, const Tensor& k, const Tensor& query_offsets, const Tensor& key_offsets, F&& f) {
  const int64_t heads = q.shape(1), width = q.shape(2), groups = k.shape(1);
  const auto qo = query_offsets.data<int32_t>(), ko = key_offsets.data<int32_t>();
  for (int64_t b = 0; b + 1 < query_offsets.size(); ++b)
    for (int64_t i = qo[b]; i < qo[b + 1]; ++i)
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t seen = (ko[b + 1] - ko[b]) - (qo[b + 1] - i) + 1;
        Tensor scores = zeros({seen});
        for (int64_t j = 0; j < seen; ++j)
          for (int64_t c = 0; c < width; ++c)
            scores.data<double>()[j] += q.data<double>()[(i * heads + h) * width + c] *
                                        k.data<double>()[((ko[b] + j) * groups + h / (heads / groups)) * width + c] /
                                        std::sqrt(double(width));
        f(i, h, int64_t(ko[b]), reference::softmax(scores));
      }
}

inline Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& query_offsets,
                        const Tensor& key_offsets) {
  const int64_t heads = q.shape(1), width = q.shape(2), groups = k.shape(1);
  Tensor y = zeros(q.shape());
  each_query(q, k, query_offsets, key_offsets, [&](int64_t i, int64_t h, int64_t key, const Tensor& p) {
    for (int64_t j = 0; j < p.size(); ++j)
      for (int64_t c = 0; c < width; ++c)
        y.data<double>()[(i * heads + h) * width + c] +=
            p.data<double>()[j] * v.data<double>()[((key + j) * groups + h / (heads / groups)) * width + c];
  });
  return y;
}

/// dq, dk, dv.
inline std::vector<Tensor> attention_backward(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                                              const Tensor& query_offsets, const Tensor& key_offsets) {
  const int64_t heads = q.shape(1), width = q.shape(2), groups = k.shape(1);
  std::vector<Tensor> g{zeros(q.shape()), zeros(k.shape()), zeros(v.shape())};
  each_query(q, k, query_offsets, key_offsets, [&](int64_t i, int64_t h, int64_t key, const Tensor& p) {
    const int64_t query = (i * heads + h) * width, keys = (key * groups + h / (heads / groups)) * width,
                  step = groups * width;
    Tensor dp = zeros(p.shape());
    for (int64_t j = 0; j < p.size(); ++j)
      for (int64_t c = 0; c < width; ++c) {
        dp.data<double>()[j] += dy.data<double>()[query + c] * v.data<double>()[keys + j * step + c];
        g[2].data<double>()[keys + j * step + c] += p.data<double>()[j] * dy.data<double>()[query + c];
      }
    double mean = 0;
    for (int64_t j = 0; j < p.size(); ++j) mean += p.data<double>()[j] * dp.data<double>()[j];
    for (int64_t j = 0; j < p.size(); ++j)
      for (int64_t c = 0; c < width; ++c) {
        const double ds = p.data<double>()[j] * (dp.data<double>()[j] - mean) / std::sqrt(double(width));
        g[0].data<double>()[query + c] += ds * k.data<double>()[keys + j * step + c];
        g[1].data<double>()[keys + j * step + c] += ds * q.data<double>()[query + c];
      }
  });
  return g;
}

}  // namespace agon::reference
