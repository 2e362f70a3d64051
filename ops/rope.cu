#include "ops/rope.h"

#include <cmath>

#include "core/cuda/launch.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

/// A thread turns pair i of every head of a token: the angle, made in f64 as on the CPU, serves them all.
template <class T>
__global__ void turn(T* y, const T* x, const int32_t* position, double theta, float sign, int64_t tokens, int64_t heads,
                     int64_t half) {
  const int64_t n = int64_t(blockIdx.x) * kThreads + threadIdx.x, t = n / half, i = n % half;
  if (t >= tokens) return;
  const double angle = double(position[t]) * std::pow(theta, -double(i) / double(half));
  const float cosine = float(std::cos(angle)), sine = sign * float(std::sin(angle));
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t at = (t * heads + h) * half * 2 + i;
    const float u = float(x[at]), v = float(x[at + half]);
    y[at] = T(u * cosine - v * sine);
    y[at + half] = T(v * cosine + u * sine);
  }
}

}  // namespace

void Rope::Forward::cuda(const Tensor& y, const Tensor& x, const Tensor& position, double theta, int direction) {
  const int64_t tokens = x.shape(0), heads = x.shape(1), half = x.shape(2) / 2;
  cuda::visit(x.dtype(), [&]<class T>() {
    cuda::launch({"rope", x, position}, turn<T>, cuda::blocks(tokens * half, kThreads), kThreads, 0,
                 cuda::pointer<T>(y), cuda::pointer<const T>(x), cuda::pointer<const int32_t>(position), theta,
                 float(direction), tokens, heads, half);
  });
}

}  // namespace agon
