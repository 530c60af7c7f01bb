// CPU kernels of the operator `mlip::gate`, free of torch so that they compile in seconds. gate.cpp has the formula.
//
// gate_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

#include "operators/gate/gate_activation.h"

namespace mlip {

/// Neighbouring channels of one output with one activation and factor. Offsets in values, not bytes.
template <typename T>
struct GatePiece {
  Activation activation;
  T factor;
  std::int64_t channels;
  std::int64_t gate, gate_first;    ///< input of the activated scalars, first channel in it
  std::int64_t value, value_first;  ///< input that they multiply; -1: the output is the activated scalars themselves
  std::int64_t output, output_first;
  std::int64_t components;       ///< of value and output, 1 without a value
  std::int64_t value_channels;   ///< from component to component of the value
  std::int64_t output_channels;  ///< and of the output
};

template <typename T>
struct GateProblem {
  const GatePiece<T>* pieces;
  std::int64_t n_pieces, n_inputs;
  const T* const* inputs;            ///< [n_inputs] -> [n_atoms, input_sizes[k]]
  const std::int64_t* input_sizes;   ///< values of an atom
  const std::int64_t* output_sizes;  ///< likewise of each output
};

/// The kernels of one instruction set for one type, for atoms [begin, end) only.
template <typename T>
struct GateKernels {
  /// Overwrites outputs[k], [n_atoms, output_sizes[k]].
  void (*forward)(const GateProblem<T>& problem, T* const* outputs, std::int64_t begin, std::int64_t end);
  /// Overwrites gradients[k], [n_atoms, input_sizes[k]], from those of the outputs.
  void (*backward)(const GateProblem<T>& problem, const T* const* output_gradients, T* const* gradients,
                   std::int64_t begin, std::int64_t end);
};

}  // namespace mlip
