#include "ops/grouped_linear.h"

#include <algorithm>
#include <vector>

#include "autograd/tape.h"
#include "ops/cpu/bias.h"
#include "ops/cpu/groups.h"
#include "ops/cpu/matrix.h"
#include "ops/parameter_gradient.h"

namespace agon {

namespace {

void check_offsets(const Tensor& offsets, int64_t n) {
  const auto offset = offsets.data<const int32_t>();
  check(offset[0] == 0 && std::ranges::is_sorted(offset) && offset.back() <= n,
        "grouped_linear: offsets must ascend from 0 to at most ", n, " rows, they end at ", offset.back());
}

/// out[rows of e] = in[rows of e] times matrix(e), [k, n]; rows of no group become 0.
template <class MatrixOf>
void multiply_rows(const Tensor& out, const Tensor& in, const Tensor& offsets, MatrixOf&& matrix_of,
                   const Tensor& bias) {
  const int64_t rows = out.shape(0), n = out.shape(1);
  check_offsets(offsets, rows);
  const std::vector<cpu::GroupBlock> blocks = cpu::group_blocks(offsets, in.shape(1));
  parallel_tasks(int64_t(blocks.size()), [&](int64_t task) {
    const auto [group, begin, end] = blocks[size_t(task)];
    cpu::gemm(end - begin, n, in.shape(1), cpu::matrix(in).from(begin, 0), matrix_of(group),
              cpu::output(out).from(begin, 0));
    if (bias) cpu::add_bias(out, begin, end, bias, group * n);
  });
  const int64_t used = offsets.data<const int32_t>().back();
  std::fill_n(static_cast<char*>(cpu::output(out).from(used, 0).data), (rows - used) * n * size_of(out.dtype()),
              char(0));
}

}  // namespace

void GroupedLinear::Forward::cpu(const Tensor& y, const Tensor& rows, const Tensor& w, const Tensor& offsets,
                                 const Tensor& bias) {
  const auto transposed = [&](int64_t e) { return cpu::matrix(w).from(e * w.shape(1), 0).transposed(); };
  multiply_rows(y, rows, offsets, transposed, bias);
}

void GroupedLinear::Input::cpu(const Tensor& drows, const Tensor& dy, const Tensor& w, const Tensor& offsets) {
  multiply_rows(drows, dy, offsets, [&](int64_t e) { return cpu::matrix(w).from(e * w.shape(1), 0); }, {});
}

void GroupedLinear::Weight::cpu(const Tensor& dw, bool add, const Tensor& dy, const Tensor& rows,
                                const Tensor& offsets) {
  const auto offset = offsets.data<const int32_t>();
  cpu::each_group_piece(dw.shape(0), dw.shape(1), dw.shape(2), [&](const cpu::GroupPiece& piece) {
    const auto [e, row, m, column, n] = piece;
    const int64_t begin = offset[size_t(e)], end = offset[size_t(e) + 1];
    if (add && begin == end) return;
    cpu::gemm(m, n, end - begin, cpu::matrix(dy).from(begin, row).transposed(), cpu::matrix(rows).from(begin, column),
              cpu::output(dw).from(e * dw.shape(1) + row, column), add);
  });
}

void GroupedLinear::Bias::cpu(const Tensor& dbias, bool add, const Tensor& dy, const Tensor& offsets) {
  const auto offset = offsets.data<const int32_t>();
  parallel_tasks(dbias.shape(0),
                 [&](int64_t e) { cpu::sum_rows(dbias, e * dbias.shape(1), add, dy, offset[e], offset[e + 1]); });
}

Tensor grouped_linear(const Tensor& rows, const Tensor& w, const Tensor& offsets, const Tensor& bias) {
  check(w.shape().rank() == 3 && rows.shape().rank() == 2 && rows.shape(1) == w.shape(2), "grouped_linear: rows ",
        rows.shape(), " do not go with w ", w.shape(), "; the last extents must agree");
  check(offsets.dtype() == DType::i32 && offsets.shape() == Shape{w.shape(0) + 1}, "grouped_linear: offsets ",
        offsets.shape(), " of ", offsets.dtype(), ", expected i32 ", Shape{w.shape(0) + 1});
  check(rows.dtype() == w.dtype(), "grouped_linear: rows of ", rows.dtype(), " do not go with w of ", w.dtype());
  check(!bias || bias.shape() == Shape{w.shape(0), w.shape(1)}, "grouped_linear: bias ", bias.shape(), ", expected ",
        Shape{w.shape(0), w.shape(1)});
  Tensor y({rows.shape(0), w.shape(1)}, rows.dtype(), rows.device());
  run<GroupedLinear::Forward>(rows.device(), y, rows, w, offsets, bias);
  return record("grouped_linear", {&rows, &w, &bias}, y, [rows, w, offsets, bias](Gradients& g, const Tensor& dy) {
    if (g.wants(rows)) {
      Tensor drows(rows.shape(), rows.dtype(), rows.device());
      run<GroupedLinear::Input>(rows.device(), drows, dy, w, offsets);
      g.add(rows, drows);
    }
    give_gradient(
        g, w, [&](const Tensor& dw, bool add) { run<GroupedLinear::Weight>(w.device(), dw, add, dy, rows, offsets); });
    give_gradient(
        g, bias, [&](const Tensor& dbias, bool add) { run<GroupedLinear::Bias>(w.device(), dbias, add, dy, offsets); });
  });
}

}  // namespace agon
