#include "distributed/communicator.h"

namespace agon {

namespace {

/// A call that was over when it was started.
class Ended final : public StartedCall {
 public:
  explicit Ended(Tensor result) : result_(std::move(result)) {}
  Tensor finish() override { return result_; }

 private:
  Tensor result_;
};

}  // namespace

std::unique_ptr<StartedCall> Communicator::start_all_reduce(const Tensor& t) {
  all_reduce(t);
  return std::make_unique<Ended>(t);
}

std::unique_ptr<StartedCall> Communicator::start_reduce_scatter(const Tensor& t) {
  return std::make_unique<Ended>(reduce_scatter(t));
}

}  // namespace agon
