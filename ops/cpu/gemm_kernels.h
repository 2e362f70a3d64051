#pragma once
#include <stdint.h>

// What gemm.cpp asks of an instruction set, and the sets there are. Nothing of the standard library here: this header
// is compiled for several instruction sets in one program, and the linker would keep any one version of a shared
// template.
namespace agon::cpu {

/// C [rows, columns] = [C +] sum over ascending l of a[l * rows + i] * b[l * b_stride + j], one FMA chain per element.
/// b has `vectors` registers' worth of numbers in each row; columns above `columns` are not written.
template <class T>
struct GemmTile {
  int64_t rows, vectors, columns, k;
  const T* a;
  const T* b;
  int64_t b_stride;
  T* c;
  int64_t c_stride;
  bool add;
};

/// to[l * width + lane] = from[lane * lane_stride + l * k_stride] for l in [0, k), 0 for lanes in [lanes, width).
template <class T, class From>
using GemmPack = void (*)(T* to, int64_t width, int64_t lanes, int64_t k, const From* from, int64_t lane_stride,
                          int64_t k_stride);

template <class T>
struct GemmKernel {
  int64_t rows;     // a tile has 1 to this many
  int64_t numbers;  // in a register; a tile is 1 or 2 registers wide
  void (*tile)(const GemmTile<T>&);
  GemmPack<T, T> pack;
};

struct GemmInstructions {
  const char* name;
  GemmKernel<float> f32;
  GemmKernel<double> f64;
  GemmPack<float, uint16_t> pack_bf16;  // widens: bf16 as its bits
  void (*round_to_bf16)(uint16_t* to, const float* from, int64_t n);
};

extern const GemmInstructions kGemmGeneric, kGemmAvx2, kGemmAvx512;

// Shared by both x86 sets: packing is memory-bound.
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
