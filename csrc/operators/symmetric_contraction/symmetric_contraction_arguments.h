// What the host passes to the kernels of symmetric_contraction.cu. Compiled on both sides, so without a standard
// library.
#pragma once

namespace mlip::gpu {

/// Pointers to device memory; `void` stands for the type of the model, float or double.
struct SymmetricContractionArguments {
  long long n_atoms;
  int n_components, channels, n_elements, n_blocks, n_terms, n_outputs;
  const void* features;          ///< [n_atoms, n_components, channels]
  const long long* types;        ///< [n_atoms]
  const int* terms;              ///< [n_terms, 1 + degree]: output, then the components that are multiplied
  const void* coefficients;      ///< [n_elements, n_blocks, n_terms, channel_block]
  void* outputs;                 ///< forward: [n_atoms, n_outputs, channels], given as zeros
  const void* output_gradients;  ///< backward: of the same shape
  void* features_gradient;       ///< backward: shape of features, overwritten
};

}  // namespace mlip::gpu
