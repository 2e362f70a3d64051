#include "ops/cpu/gemm.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "core/parallel.h"
#include "ops/cpu/gemm_kernels.h"
#include "tests/support/gradient.h"

using namespace agon;
using namespace agon::testing;
using cpu::ConstMatrix;
using cpu::Matrix;

namespace {

struct Size {
  int64_t m, n, k;
};
// Odd in every way: below, at and above the tile's rows and columns, and a k that is cut twice.
const Size kSizes[] = {{1, 1, 1},   {5, 7, 3},     {3, 4, 0},     {17, 33, 129},
                       {2, 47, 64}, {14, 32, 257}, {64, 65, 300}, {15, 40, 513}};

/// A [rows, columns] matrix of draws with room around it, and how it lies in memory.
struct Operand {
  Tensor memory;
  ConstMatrix matrix;

  Operand(int64_t rows, int64_t columns, bool row_major, uint64_t seed, DType dtype)
      : memory(random({(row_major ? rows : columns) + 1, (row_major ? columns : rows) + 3}, seed, 1, dtype)),
        matrix{memory.address(), dtype, row_major ? memory.shape(1) : 1, row_major ? 1 : memory.shape(1)} {}
};

/// C with a margin of three columns, which no product may touch.
Tensor start_of(const Size& s, DType dtype) { return random({s.m + 1, s.n + 3}, 9, 1, dtype); }
Matrix matrix(const Tensor& c) { return {const_cast<void*>(c.address()), c.dtype(), c.shape(1)}; }

template <class T>
T load(const ConstMatrix& x, int64_t i, int64_t j) {
  const int64_t at = i * x.row_stride + j * x.column_stride;
  if (x.dtype == DType::bf16) return T(float(static_cast<const bf16*>(x.data)[at]));
  return static_cast<const T*>(x.data)[at];
}

/// The contract, word for word: one ascending chain per element.
template <class T>
Tensor chain(const Size& s, const ConstMatrix& a, const ConstMatrix& b, const Tensor& start, bool add) {
  const Tensor c = clone(start);
  for (int64_t i = 0; i < s.m; ++i)
    for (int64_t j = 0; j < s.n; ++j) {
      const int64_t at = i * c.shape(1) + j;
      T sum = add ? c.data<T>()[at] : T(0);
      for (int64_t l = 0; l < s.k; ++l) sum = std::fma(load<T>(a, i, l), load<T>(b, l, j), sum);
      if (c.dtype() == DType::bf16)
        c.data<bf16>()[at] = bf16(sum);
      else
        c.data<T>()[at] = sum;
    }
  return c;
}

struct Types {
  DType a, b, c;
};
const Types kTypes[] = {{DType::f64, DType::f64, DType::f64},   {DType::f32, DType::f32, DType::f32},
                        {DType::bf16, DType::bf16, DType::f32}, {DType::bf16, DType::bf16, DType::bf16},
                        {DType::f32, DType::bf16, DType::f32},  {DType::bf16, DType::f32, DType::bf16}};

}  // namespace

TEST_CASE("gemm: every instruction set gives the bits of one ascending chain per element, and writes nothing else") {
  for (const Types& types : kTypes)
    for (const Size& s : kSizes)
      for (const int layout : {0, 1, 2, 3})
        for (const bool add : {false, true}) {
          if (add && types.c == DType::bf16) continue;
          const Operand a(s.m, s.k, layout % 2 == 0, 1, types.a), b(s.k, s.n, layout / 2 == 0, 2, types.b);
          const Tensor start = start_of(s, types.c);
          const Tensor expected = types.c == DType::f64 ? chain<double>(s, a.matrix, b.matrix, start, add)
                                                        : chain<float>(s, a.matrix, b.matrix, start, add);
          for (int i = 0; const cpu::GemmInstructions* set = cpu::gemm_instructions(i); ++i) {
            const Tensor c = clone(start);
            cpu::gemm_with(*set, s.m, s.n, s.k, a.matrix, b.matrix, matrix(c), add);
            INFO(set->name, " ", types.a, " ", types.b, " ", types.c, " ", s.m, " ", s.n, " ", s.k, " layout ", layout,
                 " add ", add);
            // A dot-product instruction rounds a pair of products in its own way.
            if (set->pairs && types.a == DType::bf16 && types.b == DType::bf16)
              CHECK(relative_error(c, expected) < (types.c == DType::bf16 ? 4e-3 : 1e-6));
            else
              CHECK(identical(c, expected));
          }
        }
  CHECK(cpu::gemm_instruction_set() == std::string(cpu::gemm_instructions(0)->name));
}

TEST_CASE("gemm: agrees with sums in f64 of another order") {
  const Size s{13, 21, 90};
  const Operand a(s.m, s.k, true, 1, DType::f32), b(s.k, s.n, false, 2, DType::f32);
  Tensor c({s.m, s.n}, DType::f32);
  cpu::gemm(s.m, s.n, s.k, a.matrix, b.matrix, matrix(c));
  Tensor expected({s.m, s.n}, DType::f64);
  for (int64_t i = 0; i < s.m; ++i)
    for (int64_t j = 0; j < s.n; ++j) {
      double sum = 0;
      for (int64_t l = s.k - 1; l >= 0; --l)
        sum += double(load<float>(a.matrix, i, l)) * double(load<float>(b.matrix, l, j));
      expected.data<double>()[i * s.n + j] = sum;
    }
  CHECK(relative_error(c, expected) < 1e-6);
}

TEST_CASE("gemm: a row's bits are the same alone, in a large product, and on 1, 2 or 3 threads") {
  // B shared by several blocks of rows: too large for the cache, and small; deeper than what stays packed; few rows.
  for (const Size& s : {Size{530, 1060, 260}, {530, 40, 260}, {530, 70, 1701}, {5, 600, 300}})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      CAPTURE(s.m);
      CAPTURE(s.n);
      const Operand a(s.m, s.k, true, 1, dtype), b(s.k, s.n, false, 2, dtype);
      Tensor whole({s.m, s.n}, dtype), threaded({s.m, s.n}, dtype), row({1, s.n}, dtype);
      cpu::gemm(s.m, s.n, s.k, a.matrix, b.matrix, matrix(whole));
      for (const int64_t i : {int64_t(0), int64_t(13), int64_t(14), int64_t(255), int64_t(256), s.m - 1}) {
        if (i >= s.m) continue;
        cpu::gemm(1, s.n, s.k, a.matrix.from(i, 0), b.matrix, matrix(row));
        CHECK(std::memcmp(row.address(), matrix(whole).from(i, 0).data, size_t(row.bytes())) == 0);
      }
      for (const int n : {1, 2, 3}) {
        set_threads(n);
        fill(threaded, 7);
        cpu::parallel_gemm(s.m, s.n, s.k, a.matrix, b.matrix, matrix(threaded));
        CHECK(identical(threaded, whole));
      }
      set_threads(0);
    }
}

TEST_CASE("gemm: strides that are not 1 either way, products without rows or columns") {
  const Size s{9, 10, 11};
  const Tensor a = random({2 * s.m, 3 * s.k}, 1, 1, DType::f32), b = random({2 * s.k, 3 * s.n}, 2, 1, DType::f32);
  const ConstMatrix left{a.address(), DType::f32, 2 * a.shape(1), 3}, right{b.address(), DType::f32, 2 * b.shape(1), 3};
  const Tensor start = start_of(s, DType::f32);
  for (int i = 0; const cpu::GemmInstructions* set = cpu::gemm_instructions(i); ++i) {
    const Tensor c = clone(start);
    cpu::gemm_with(*set, s.m, s.n, s.k, left, right, matrix(c), true);
    CHECK(identical(c, chain<float>(s, left, right, start, true)));
    cpu::gemm_with(*set, 0, s.n, s.k, left, right, matrix(c), false);
    cpu::gemm_with(*set, s.m, 0, s.k, left, right, matrix(c), false);
    cpu::parallel_gemm(0, s.n, s.k, left, right, matrix(c));
    cpu::parallel_gemm(s.m, 0, s.k, left, right, matrix(c));
    CHECK(identical(c, chain<float>(s, left, right, start, true)));
  }
}

TEST_CASE("gemm: NaN and infinity in a row stay in that row, rounding to bf16 is that of the type") {
  const Size s{20, 40, 30};
  const Operand a(s.m, s.k, true, 1, DType::f32), b(s.k, s.n, true, 2, DType::f32);
  a.memory.data<float>()[3 * a.memory.shape(1) + 5] = std::nanf("");
  a.memory.data<float>()[4 * a.memory.shape(1) + 5] = INFINITY;
  for (int i = 0; const cpu::GemmInstructions* set = cpu::gemm_instructions(i); ++i) {
    const Tensor start = start_of(s, DType::bf16), c = clone(start);
    cpu::gemm_with(*set, s.m, s.n, s.k, a.matrix, b.matrix, matrix(c), false);
    CHECK(identical(c, chain<float>(s, a.matrix, b.matrix, start, false)));
  }
  CHECK_THROWS_AS(cpu::gemm(1, 1, 1, a.matrix, ConstMatrix{nullptr, DType::f64, 1, 1}, matrix(start_of(s, DType::f32))),
                  Error);
}
