#include "ops/activation.h"

#include "ops/cuda/map.cuh"

namespace agon {

template void Unary<Gelu::Forward>::cuda(const Tensor&, const Tensor&, const Gelu::Forward&);
template void Binary<Gelu::Backward>::cuda(const Tensor&, const Tensor&, const Tensor&, const Gelu::Backward&);
template void Unary<Relu::Forward>::cuda(const Tensor&, const Tensor&, const Relu::Forward&);
template void Binary<Relu::Backward>::cuda(const Tensor&, const Tensor&, const Tensor&, const Relu::Backward&);
template void Unary<Sigmoid::Forward>::cuda(const Tensor&, const Tensor&, const Sigmoid::Forward&);
template void Binary<Sigmoid::Backward>::cuda(const Tensor&, const Tensor&, const Tensor&, const Sigmoid::Backward&);

}  // namespace agon
