#include "autograd/parameter.h"

#include "core/copy.h"

namespace agon {

Parameter::Parameter(Shape shape, Precision precision, Device device)
    : value(shape, precision.compute, device),
      master(precision.compute == precision.master ? value : Tensor(shape, precision.master, device)),
      grad(shape, precision.master, device) {
  master.zero();
  value.zero();
}

void Parameter::refresh() {
  if (master.address() != value.address()) copy(value, master);
}

}  // namespace agon
