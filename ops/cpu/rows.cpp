#include "ops/cpu/rows.h"

namespace agon::cpu {

namespace {

const RowInstructions& widest() {
  static const RowInstructions& set = *row_instructions(0);
  return set;
}

}  // namespace

template <>
const RowKernels<float>& row_kernels<float>() {
  return widest().f32;
}
template <>
const RowKernels<bf16>& row_kernels<bf16>() {
  return widest().half;
}
template <>
const RowKernels<double>& row_kernels<double>() {
  return kRowsDouble;
}
template <>
const UpdateKernels<float>& update_kernels<float>() {
  return widest().update;
}
template <>
const UpdateKernels<double>& update_kernels<double>() {
  return kUpdateDouble;
}
template <>
const ChoiceKernels<float>& choice_kernels<float>() {
  return widest().choice;
}
template <>
const ChoiceKernels<double>& choice_kernels<double>() {
  return kChoiceDouble;
}

}  // namespace agon::cpu
