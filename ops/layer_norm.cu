#include "ops/layer_norm.h"

#include <cmath>

#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/rows.cuh"

namespace agon {

namespace {

/// X is cuda::Elements or cuda::Sums.
template <class Row, class X, class T, class G>
__global__ void forward(T* y, float* statistics, X x, const G* gain, const G* bias, float epsilon, int64_t width,
                        int64_t rows) {
  const Row r;
  if (r.row >= rows) return;
  const int64_t begin = r.row * width;
  const float mean = cuda::row_sum(r, width, [=](int64_t i) { return x.first(begin + i); }) / float(width);
  const float squares = cuda::row_sum(r, width, [=](int64_t i) {
    const float v = x.again(begin + i) - mean;
    return v * v;
  });
  const float scale = 1 / std::sqrt(squares / float(width) + epsilon);
  if (r.rank == 0) {
    statistics[2 * r.row] = mean;
    statistics[2 * r.row + 1] = scale;
  }
  for (int64_t i = r.rank; i < width; i += Row::kThreads)
    y[begin + i] = T((x.again(begin + i) - mean) * scale * float(gain[i]) + (bias ? float(bias[i]) : 0));
}

template <class T, class X>
void launch_forward(const cuda::Label& label, const Tensor& y, const Tensor& statistics, const X& x,
                    const Tensor& gain, const Tensor& bias, double epsilon) {
  cuda::visit(gain.dtype(), [&]<class G>() {
    cuda::by_row_width(y.shape(-1), [&]<class Row>() {
      cuda::launch_rows<Row>(label, forward<Row, X, T, G>, y.shape().rows(), cuda::pointer<T>(y),
                             cuda::pointer<float>(statistics), x, cuda::pointer<const G>(gain),
                             cuda::pointer<const G>(bias), float(epsilon), y.shape(-1), y.shape().rows());
    });
  });
}

template <class Row, class T, class G>
__global__ void input(T* dx, const T* dy, const T* x, const float* statistics, const G* gain, int64_t width,
                      int64_t rows) {
  const Row r;
  if (r.row >= rows) return;
  const T *const from = x + r.row * width, *const slope = dy + r.row * width;
  T* const to = dx + r.row * width;
  const float mean = statistics[2 * r.row], scale = statistics[2 * r.row + 1];
  const float even =
      cuda::row_sum(r, width, [=](int64_t i) { return float(slope[i]) * float(gain[i]); }) / float(width);
  const float along =
      cuda::row_sum(r, width,
                    [=](int64_t i) { return float(slope[i]) * float(gain[i]) * ((float(from[i]) - mean) * scale); }) /
      float(width);
  for (int64_t i = r.rank; i < width; i += Row::kThreads)
    to[i] = T(scale * (float(slope[i]) * float(gain[i]) - even - (float(from[i]) - mean) * scale * along));
}

template <class T>
struct GainTerm {
  const T *dy, *x;
  const float* statistics;
  int64_t width;
  __device__ float operator()(int64_t n, int64_t j) const {
    return float(dy[n * width + j]) * ((float(x[n * width + j]) - statistics[2 * n]) * statistics[2 * n + 1]);
  }
};

}  // namespace

void LayerNorm::Forward::cuda(const Tensor& y, const Tensor& statistics, const Tensor& x, const Tensor& gain,
                              const Tensor& bias, double epsilon) {
  cuda::visit(x.dtype(), [&]<class T>() {
    const cuda::Elements<T> elements{cuda::pointer<const T>(x)};
    launch_forward<T>({"layer_norm", x, gain}, y, statistics, elements, gain, bias, epsilon);
  });
}

void LayerNorm::Sum::cuda(const Tensor& sum, const Tensor& y, const Tensor& statistics, const Tensor& x,
                          const Tensor& residual, const Tensor& gain, const Tensor& bias, double epsilon) {
  cuda::visit(x.dtype(), [&]<class T>() {
    const cuda::Sums<T> sums{cuda::pointer<T>(sum), cuda::pointer<const T>(x), cuda::pointer<const T>(residual)};
    launch_forward<T>({"add_layer_norm", x, residual, gain}, y, statistics, sums, gain, bias, epsilon);
  });
}

void LayerNorm::Input::cuda(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& statistics,
                            const Tensor& gain) {
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::visit(gain.dtype(), [&]<class G>() {
      cuda::by_row_width(x.shape(-1), [&]<class Row>() {
        cuda::launch_rows<Row>({"layer_norm backward", x, gain}, input<Row, T, G>, x.shape().rows(),
                               cuda::pointer<T>(dx), cuda::pointer<const T>(dy), cuda::pointer<const T>(x),
                               cuda::pointer<const float>(statistics), cuda::pointer<const G>(gain), x.shape(-1),
                               x.shape().rows());
      });
    });
  });
}

void LayerNorm::Gain::cuda(const Tensor& dgain, bool add, const Tensor& dy, const Tensor& x, const Tensor& statistics) {
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::column_sums({"layer_norm's gain", x}, dgain, add, x.shape().rows(),
                      GainTerm<T>{cuda::pointer<const T>(dy), cuda::pointer<const T>(x),
                                  cuda::pointer<const float>(statistics), x.shape(-1)});
  });
}

void LayerNorm::Bias::cuda(const Tensor& dbias, bool add, const Tensor& dy) {
  cuda::visit(dy.dtype(), [&]<class T>() {
    cuda::column_sums({"layer_norm's bias", dy}, dbias, add, dy.shape().rows(),
                      cuda::Stored<T>{cuda::pointer<const T>(dy), dy.shape(-1)});
  });
}

}  // namespace agon
