#pragma once
#include <stdint.h>

// What gemm.cpp asks of an instruction set, and the sets there are. Nothing of the standard library here: this header
// is compiled for several instruction sets in one program, and the linker would keep any one version of a shared
// template.
namespace agon::cpu {

/// Two bf16 neighbours in k as their bits, the first in the lower half: what dot-product instructions take.
struct Bf16Pair {
  uint32_t bits;
};

/// How a packed operand counts: numbers of k in one packed element, and the type of C.
template <class P>
struct Packed {
  using Number = P;
  static constexpr int64_t kNumbers = 1;
};
template <>
struct Packed<Bf16Pair> {
  using Number = float;
  static constexpr int64_t kNumbers = 2;
};

/// Cache lines to ask for while a tile computes: those numbered [begin, end) of runs of `lines` lines, `stride` bytes
/// from run to run.
struct GemmAhead {
  const char* first;
  int64_t lines, stride, begin, end;
};

/// C [rows, columns] = [C +] sum over ascending l of a[l * rows + i] * b[l * b_stride + j], one chain per element.
/// b has `vectors` registers' worth of elements in each row; columns above `columns` are not written. k counts packed
/// elements.
template <class P>
struct GemmTile {
  int64_t rows, vectors, columns, k;
  const P* a;
  const P* b;
  int64_t b_stride;
  typename Packed<P>::Number* c;
  int64_t c_stride;
  bool add;
  GemmAhead ahead;
};

/// to[l * width + lane] = from[lane * lane_stride + l * k_stride] for l in [0, k), 0 for lanes in [lanes, width). Pairs
/// take numbers 2l and 2l + 1, with 0 for what lies beyond k; k counts numbers.
template <class P, class From>
using GemmPack = void (*)(P* to, int64_t width, int64_t lanes, int64_t k, const From* from, int64_t lane_stride,
                          int64_t k_stride);

template <class P>
struct GemmKernel {
  int64_t rows;     // a tile has 1 to this many
  int64_t numbers;  // in a register; a tile is 1 or 2 registers wide
  void (*tile)(const GemmTile<P>&);
};

/// Products of bf16 with bf16 by dot-product instructions. An element is a chain of pairs: each instruction adds two
/// products, subnormal operands and results counting as 0.
struct GemmPairs {
  GemmKernel<Bf16Pair> kernel;
  GemmPack<Bf16Pair, uint16_t> pack;
};

struct GemmInstructions {
  const char* name;
  GemmKernel<float> f32;
  GemmKernel<double> f64;
  GemmPack<float, float> pack_f32;
  GemmPack<double, double> pack_f64;
  GemmPack<float, uint16_t> pack_bf16;  // widens: bf16 as its bits
  void (*round_to_bf16)(uint16_t* to, const float* from, int64_t n);
  const GemmPairs* pairs;  // null where the processor has no such instruction
};

extern const GemmInstructions kGemmGeneric, kGemmAvx2, kGemmAvx512;
extern const GemmPairs kGemmPairsAvx512;

// Shared by the x86 sets.
void pack_avx2(float* to, int64_t width, int64_t lanes, int64_t k, const float* from, int64_t lane_stride,
               int64_t k_stride);
void pack_avx2(double* to, int64_t width, int64_t lanes, int64_t k, const double* from, int64_t lane_stride,
               int64_t k_stride);
void pack_bf16_avx2(float* to, int64_t width, int64_t lanes, int64_t k, const uint16_t* from, int64_t lane_stride,
                    int64_t k_stride);
void round_to_bf16_avx2(uint16_t* to, const float* from, int64_t n);

/// The i-th of the sets this processor can run, widest first; null past the last, which is generic.
const GemmInstructions* gemm_instructions(int i);

/// gemm with a set of one's choice, for the tests.
struct ConstMatrix;
struct Matrix;
void gemm_with(const GemmInstructions& instructions, int64_t m, int64_t n, int64_t k, ConstMatrix a, ConstMatrix b,
               Matrix c, bool add);

}  // namespace agon::cpu
