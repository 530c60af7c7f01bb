// CPU kernels of the operator `mlip::symmetric_contraction`, free of torch so that they compile in seconds.
//
// The operator is a polynomial in the components of an atom's features, for every channel u by itself:
//
//   out[i][o][u] = Σ_{terms t of output o} c[type(i)][t][u] Π_d x[i][factor(monomial(t), d)][u]
//
// which is what MACE's symmetric contraction is once products that differ in their order alone are collected, and the
// learnt weights of an element are multiplied into the generalised Clebsch-Gordan coefficients. The coefficients that
// are zero, nearly all of them, are left out.
#pragma once

#include <cstdint>

namespace mlip {

/// Channels whose coefficients lie together: `coefficients` is [n_elements][n_blocks][n_terms][channel_block].
constexpr std::int64_t channel_block = 16;

/// Highest degree of a polynomial that is compiled.
constexpr int highest_degree = 4;

/// Inputs of one call. Atoms and their rows are dense.
template <typename T>
struct SymmetricContractionProblem {
  const T* features;          ///< [n_atoms, n_components, channels]
  const std::int64_t* types;  ///< [n_atoms] element of each atom
  std::int64_t n_components;
  std::int64_t channels;
  std::int64_t n_blocks;        ///< channels / channel_block, rounded up
  const std::int64_t* factors;  ///< [n_monomials, degree] components; n_components stands for the number one
  int degree;                   ///< 1 to highest_degree
  std::int64_t n_monomials;
  const std::int64_t* monomials;   ///< [n_terms], terms of an output beside each other
  const std::int64_t* first_term;  ///< [n_outputs + 1]
  std::int64_t n_terms;
  std::int64_t n_outputs;
  const T* coefficients;
};

/// Values of working memory for one call of either kernel.
template <typename T>
std::int64_t scratch_size(const SymmetricContractionProblem<T>& problem) {
  constexpr std::int64_t widest = 2 * 64 / sizeof(T);
  return widest * (2 * (problem.n_components + 1) + problem.n_monomials);
}

/// The kernels of one instruction set for one type, over atoms [begin, end).
template <typename T>
struct SymmetricContractionKernels {
  /// Overwrites outputs, [n_atoms, n_outputs, channels].
  void (*forward)(const SymmetricContractionProblem<T>& problem, T* outputs, std::int64_t begin, std::int64_t end,
                  T* scratch);
  /// From dE/d(outputs) to dE/d(features), which it overwrites.
  void (*backward)(const SymmetricContractionProblem<T>& problem, const T* output_gradients, T* feature_gradients,
                   std::int64_t begin, std::int64_t end, T* scratch);
};

}  // namespace mlip
