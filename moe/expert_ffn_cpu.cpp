#include <vector>

#include "autograd/tape.h"
#include "moe/cpu/routed_rows.h"
#include "moe/dispatch.h"
#include "ops/grouped_linear.h"
#include "ops/parameter_gradient.h"

namespace agon {

namespace {

using cpu::RowSource;

/// d[e] = [d +] the sum of each expert's slopesᵀ rows.
template <class Rows>
void weight_gradients(const Rows& routed, const Tensor& d, bool add, const RowSource& slopes, const RowSource& rows) {
  cpu::each_group_piece(d.shape(0), d.shape(1), d.shape(2),
                        [&](const cpu::GroupPiece& piece) { routed.weight_gradient(d, add, slopes, rows, piece); });
}

/// The answers' gradients [N, D] from those of their weighed sums.
Tensor weighed_slopes(const Tensor& dy, const ExpertFfn::Operands& o) {
  const Tensor weighed({o.before.shape(0), o.x.shape(1)}, o.x.dtype()), unused(o.weight.shape(), o.weight.dtype());
  Dispatch::CombineBackward::cpu(weighed, unused, dy, weighed, o.weight, o.plan);
  return weighed;
}

}  // namespace

void ExpertFfn::Forward::cpu(const Tensor& y, const Operands& o) {
  const std::vector<cpu::GroupBlock> blocks = cpu::group_blocks(o.plan.offsets, o.x.shape(1));
  const Tensor answers = o.weight ? Tensor({o.before.shape(0), o.x.shape(1)}, o.x.dtype()) : y;
  cpu::with_routed_rows(o, [&](const auto& rows) {
    parallel_tasks(int64_t(blocks.size()), [&](int64_t i) { rows.forward(answers, blocks[size_t(i)]); });
  });
  if (o.weight) return Dispatch::Combine::cpu(y, answers, o.weight, o.plan);
  const int64_t used = o.plan.offsets.data<const int32_t>().back();
  std::memset(cpu::output(y).from(used, 0).data, 0, size_t((y.shape(0) - used) * y.shape(1) * size_of(y.dtype())));
}

void ExpertFfn::Backward::cpu(Gradients& g, const Tensor& dy, const Operands& o) {
  const std::vector<cpu::GroupBlock> blocks = cpu::group_blocks(o.plan.offsets, o.x.shape(1));
  const int64_t N = o.before.shape(0);
  const Tensor dweight = o.weight ? Tensor(o.weight.shape(), o.weight.dtype()).zero() : Tensor();
  const Tensor dx = g.wants(o.x) ? Tensor({N, o.x.shape(1)}, o.x.dtype()) : Tensor();
  const RowSource slopes{dy, o.weight ? RowSource::weighed_tokens : RowSource::rows};
  cpu::with_routed_rows(o, [&](const auto& rows) {
    {
      const Tensor hidden({N, o.down.shape(2)}, o.x.dtype());
      parallel_tasks(int64_t(blocks.size()),
                     [&](int64_t i) { rows.backward(hidden, dweight, dx, dy, blocks[size_t(i)]); });
      if (dweight) g.add(o.weight, dweight);
      give_gradient(g, o.down, [&](const Tensor& d, bool add) {
        weight_gradients(rows, d, add, slopes, {hidden, RowSource::rows});
      });
    }
    give_gradient(g, o.down_bias, [&](const Tensor& d, bool add) {
      GroupedLinear::Bias::cpu(d, add, o.weight ? weighed_slopes(dy, o) : dy, o.plan.offsets);
    });
    give_gradient(g, o.up, [&](const Tensor& d, bool add) {
      weight_gradients(rows, d, add, {o.before, RowSource::rows}, {o.x, RowSource::tokens});
    });
    give_gradient(g, o.up_bias,
                  [&](const Tensor& d, bool add) { GroupedLinear::Bias::cpu(d, add, o.before, o.plan.offsets); });
  });
  if (!dx) return;
  const Tensor dtokens(o.x.shape(), o.x.dtype());
  Dispatch::Combine::cpu(dtokens, dx, Tensor(), o.plan);
  g.add(o.x, dtokens);
}

}  // namespace agon
