#include "ops/rms_norm.h"

#include <cmath>

#include "ops/cuda/column_sums.cuh"
#include "ops/cuda/rows.cuh"

namespace agon {

namespace {

/// X is cuda::Elements or cuda::Sums.
template <class Row, class X, class T, class G>
__global__ void forward(T* y, float* inverse, X x, const G* gain, float epsilon, int64_t width, int64_t rows) {
  const Row r;
  if (r.row >= rows) return;
  const int64_t begin = r.row * width;
  const float squares = cuda::row_sum(r, width, [=](int64_t i) {
    const float v = x.first(begin + i);
    return v * v;
  });
  const float scale = 1 / std::sqrt(squares / float(width) + epsilon);
  if (r.rank == 0) inverse[r.row] = scale;
  for (int64_t i = r.rank; i < width; i += Row::kThreads)
    y[begin + i] = T(x.again(begin + i) * scale * float(gain[i]));
}

template <class T, class X>
void launch_forward(const cuda::Label& label, const Tensor& y, const Tensor& inverse, const X& x, const Tensor& gain,
                    double epsilon) {
  cuda::visit(gain.dtype(), [&]<class G>() {
    cuda::by_row_width(y.shape(-1), [&]<class Row>() {
      cuda::launch_rows<Row>(label, forward<Row, X, T, G>, y.shape().rows(), cuda::pointer<T>(y),
                             cuda::pointer<float>(inverse), x, cuda::pointer<const G>(gain), float(epsilon),
                             y.shape(-1), y.shape().rows());
    });
  });
}

template <class Row, class T, class G>
__global__ void input(T* dx, const T* dy, const T* x, const float* inverse, const G* gain, int64_t width,
                      int64_t rows) {
  const Row r;
  if (r.row >= rows) return;
  const T *const from = x + r.row * width, *const slope = dy + r.row * width;
  T* const to = dx + r.row * width;
  const float scale = inverse[r.row];
  const float dot =
      cuda::row_sum(r, width, [=](int64_t i) { return float(slope[i]) * float(gain[i]) * float(from[i]); });
  const float along = dot * scale * scale / float(width);
  for (int64_t i = r.rank; i < width; i += Row::kThreads)
    to[i] = T(scale * (float(slope[i]) * float(gain[i]) - float(from[i]) * along));
}

template <class T>
struct GainTerm {
  const T *dy, *x;
  const float* inverse;
  int64_t width;
  __device__ float operator()(int64_t n, int64_t j) const {
    return float(dy[n * width + j]) * (float(x[n * width + j]) * inverse[n]);
  }
};

}  // namespace

void RmsNorm::Forward::cuda(const Tensor& y, const Tensor& inverse, const Tensor& x, const Tensor& gain,
                            double epsilon) {
  cuda::visit(x.dtype(), [&]<class T>() {
    const cuda::Elements<T> elements{cuda::pointer<const T>(x)};
    launch_forward<T>({"rms_norm", x, gain}, y, inverse, elements, gain, epsilon);
  });
}

void RmsNorm::Sum::cuda(const Tensor& sum, const Tensor& y, const Tensor& inverse, const Tensor& x,
                        const Tensor& residual, const Tensor& gain, double epsilon) {
  cuda::visit(x.dtype(), [&]<class T>() {
    const cuda::Sums<T> sums{cuda::pointer<T>(sum), cuda::pointer<const T>(x), cuda::pointer<const T>(residual)};
    launch_forward<T>({"add_rms_norm", x, residual, gain}, y, inverse, sums, gain, epsilon);
  });
}

void RmsNorm::Input::cuda(const Tensor& dx, const Tensor& dy, const Tensor& x, const Tensor& inverse,
                          const Tensor& gain) {
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::visit(gain.dtype(), [&]<class G>() {
      cuda::by_row_width(x.shape(-1), [&]<class Row>() {
        cuda::launch_rows<Row>({"rms_norm backward", x, gain}, input<Row, T, G>, x.shape().rows(), cuda::pointer<T>(dx),
                               cuda::pointer<const T>(dy), cuda::pointer<const T>(x),
                               cuda::pointer<const float>(inverse), cuda::pointer<const G>(gain), x.shape(-1),
                               x.shape().rows());
      });
    });
  });
}

void RmsNorm::Gain::cuda(const Tensor& dgain, bool add, const Tensor& dy, const Tensor& x, const Tensor& inverse) {
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::column_sums({"rms_norm's gain", x}, dgain, add, x.shape().rows(),
                      GainTerm<T>{cuda::pointer<const T>(dy), cuda::pointer<const T>(x),
                                  cuda::pointer<const float>(inverse), x.shape(-1)});
  });
}

}  // namespace agon
