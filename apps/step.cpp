#include "apps/step.h"

#include <malloc.h>

#include "core/error.h"

namespace agon {

void Step::operator()(const std::function<void()>& body) {
  if (!arena_) {
    arena_ = std::make_unique<Arena>(extent_, device_);
  } else if (arena_->bytes() < extent_) {
    arena_.reset();  // before the larger one is made: they need not exist together
    malloc_trim(0);
    arena_ = std::make_unique<Arena>(extent_, device_);
  }
  {
    const Arena::Scope scope(*arena_);
    body();
  }
  check(arena_->live() == 0, "a step kept ", arena_->live(), " bytes");
  if (arena_->extent() > extent_) {
    extent_ = arena_->extent();
    report_ = arena_->peak_report();
  }
}

}  // namespace agon
