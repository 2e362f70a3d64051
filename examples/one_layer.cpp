// One Mixture-of-Experts layer: made, run and differentiated. Against an installed agon: examples/CMakeLists.txt.
#include <cmath>
#include <iostream>

#include "autograd/tape.h"
#include "core/copy.h"
#include "moe/layer.h"
#include "ops/elementwise.h"
#include "ops/reduce.h"

using namespace agon;

double norm(const Tensor& x) { return std::sqrt(sum(multiply(x, x)).item()); }

int main() try {
  const int64_t tokens = 32, width = 16;
  MoeOptions options;
  options.experts = 4;
  options.expert_width = 24;
  const auto router = routers().at("token_choice")();
  const auto comm = make_self_communicator();
  MoeLayer layer(options, *router, width, Precision::fp32(), {.gate = 0.5, .up = 0.2, .down = 0.2}, *comm);
  initialise(layer, /*seed=*/1);
  name_parameters(layer);

  Tensor x({tokens, width}, DType::f32);
  fill_normal(x, {.seed = 2}, 1.0);
  RouterContext context;
  context.sequence_offsets = tensor_of<int32_t>({0, int32_t(tokens)});

  Tape tape(parameters(layer));
  const LayerOutput out = layer(x, context);
  std::cout << "output [" << out.y.shape(0) << ", " << out.y.shape(1) << "], norm " << norm(out.y.detach()) << '\n';
  tape.backward(mean(multiply(out.y, out.y)));
  for (const Parameter* p : parameters(layer))
    std::cout << "gradient of " << p->name << ", norm " << norm(p->grad) << '\n';
} catch (const Error& e) {
  std::cerr << e.what() << '\n';
  return e.exit_code();
}
