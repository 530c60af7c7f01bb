// CPU kernels of the operator `mlip::gated_addition`, free of torch so that they compile in seconds: what follows its
// matrix product, for a block of rows. gated_addition.cpp has the formula.
//
// gated_addition_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

namespace mlip {

/// Some of the rows that are added.
template <typename T>
struct GatedRows {
  std::int64_t n, n_channels;
  const std::int64_t* places;  ///< [n]
  const T* biases;             ///< [2 n_channels], of values and gates
};

/// The kernels of one instruction set for one type.
template <typename T>
struct GatedAdditionKernels {
  /// Adds what `values_and_gates` [n, 2 n_channels], without their biases, give to `sums` [n_rows, n_channels].
  void (*add)(const GatedRows<T>& rows, const T* values_and_gates, T* sums);
  /// From the gradient of the sums to those of values and gates, in place.
  void (*add_backward)(const GatedRows<T>& rows, const T* of_sums, T* values_and_gates);
};

}  // namespace mlip
