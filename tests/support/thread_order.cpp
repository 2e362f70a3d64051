#include "tests/support/cuda.h"

#ifdef AGON_SHIM
#include <cuda_runtime.h>
#endif

namespace agon::testing {

#ifdef AGON_SHIM
ThreadOrder::ThreadOrder(uint64_t order) { shim::set_order(order); }
ThreadOrder::~ThreadOrder() { shim::set_order(0); }
void hold_events(bool hold) { shim::hold_events(hold); }
#else
ThreadOrder::ThreadOrder(uint64_t) {}
ThreadOrder::~ThreadOrder() {}
void hold_events(bool) {}
#endif

}  // namespace agon::testing
