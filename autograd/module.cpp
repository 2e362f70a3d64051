#include "autograd/module.h"

#include "core/copy.h"

namespace agon {

void initialise(Parameter& p, const std::string& path, uint64_t seed) {
  uint64_t stream = 0xcbf29ce484222325u;  // FNV-1a of the path
  for (char c : path) stream = (stream ^ uint8_t(c)) * 0x100000001b3u;
  switch (p.init) {
    case Init::zero:
      fill(p.master, 0);
      break;
    case Init::one:
      fill(p.master, 1);
      break;
    case Init::normal:
      fill_normal(p.master, {seed, stream}, p.deviation, p.first);
      break;
  }
  p.refresh();
}

void move_part(Parameter& p, Device device) {
  const bool one = p.master.address() == p.value.address();
  p.value = on_device(p.value, device);
  p.master = one ? p.value : on_device(p.master, device);
  p.grad = Tensor(p.grad.shape(), p.grad.dtype(), device);
  p.has_grad = false;
}

void move_part(Tensor& state, Device device) { state = on_device(state, device); }

}  // namespace agon
