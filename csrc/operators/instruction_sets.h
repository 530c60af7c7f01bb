// The instruction sets that the loops of operators are compiled for, and which one runs.
//
// Each *_simd.cpp is compiled once per instruction set (CMakeLists.txt, simd.h); the processor decides at run time.
// `mlip::instruction_set` names it. For tests and measurements, `mlip::instruction_sets` names those that it has and
// `mlip::use_instruction_set` picks one.
#pragma once

#include <type_traits>

namespace mlip {

template <typename T>
struct AdaptiveCutoffsKernels;  // adaptive_cutoffs_kernels.h
template <typename T>
struct AngleSumsKernels;  // angle_sums_kernels.h
template <typename T>
struct EdgePerceptronKernels;  // edge_perceptron_kernels.h
template <typename T>
struct TensorProductKernels;  // edge_tensor_product_kernels.h
template <typename T>
struct EnvironmentProductKernels;  // environment_product_kernels.h
template <typename T>
struct EquivariantLinearKernels;  // equivariant_linear_kernels.h
template <typename T>
struct FeedForwardKernels;  // feed_forward_kernels.h
template <typename T>
struct GateKernels;  // gate_kernels.h
template <typename T>
struct GatedAdditionKernels;  // gated_addition_kernels.h
template <typename T>
struct LongRangePairsKernels;  // long_range_pairs_kernels.h
template <typename T>
struct NeighbourAttentionKernels;  // neighbour_attention_kernels.h
template <typename T>
struct PackedProductKernels;  // packed_product_kernels.h
template <typename T>
struct SO2ConvolutionKernels;  // so2_convolution_kernels.h
template <typename T>
struct SymmetricContractionKernels;  // symmetric_contraction_kernels.h
template <typename T>
struct SymmetryFunctionsKernels;  // symmetry_functions_kernels.h
template <typename T>
struct TokenAttentionKernels;  // token_attention_kernels.h

/// What all operators have for one type, float or double.
template <typename T>
struct OperatorKernels {
  const AdaptiveCutoffsKernels<T>* adaptive_cutoffs;
  const AngleSumsKernels<T>* angle_sums;
  const EdgePerceptronKernels<T>* edge_perceptron;
  const TensorProductKernels<T>* edge_tensor_product;
  const EnvironmentProductKernels<T>* environment_product;
  const EquivariantLinearKernels<T>* equivariant_linear;
  const FeedForwardKernels<T>* feed_forward;
  const GateKernels<T>* gate;
  const GatedAdditionKernels<T>* gated_addition;
  const LongRangePairsKernels<T>* long_range_pairs;
  const NeighbourAttentionKernels<T>* neighbour_attention;
  const PackedProductKernels<T>* packed_product;
  const SO2ConvolutionKernels<T>* so2_convolution;
  const SymmetricContractionKernels<T>* symmetric_contraction;
  const SymmetryFunctionsKernels<T>* symmetry_functions;
  const TokenAttentionKernels<T>* token_attention;
};

struct InstructionSet {
  const char* name;
  OperatorKernels<float> float32;
  OperatorKernels<double> float64;
  bool (*supported)();  ///< by this processor

  template <typename T>
  const OperatorKernels<T>& kernels() const {
    if constexpr (std::is_same_v<T, float>)
      return float32;
    else
      return float64;
  }
};

/// The one in use: the fastest that this processor has, unless `mlip::use_instruction_set` chose another.
const InstructionSet& instruction_set();

}  // namespace mlip
