// CPU kernels of the operator `mlip::edge_perceptron`, free of torch so that they compile in seconds: all that stands
// between its matrix products, for a block of edges. edge_perceptron.cpp has the formula.
//
// edge_perceptron_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

namespace mlip {

/// The sizes of one call and what all edges read.
template <typename T>
struct PerceptronProblem {
  std::int64_t n_channels;
  std::int64_t n_radial;
  bool to_atoms;                        ///< results and their gradients are rows of centres, otherwise of edges
  const T *of_centres, *of_neighbours;  ///< [n_owned or n_nodes, 2 n_channels]
  const T* biases;                      ///< [2 n_channels], of values and gates
  const T* radial_matrix;               ///< [n_radial, n_channels]
};

/// Some edges, centre by centre. Every row begins with that of the first edge.
template <typename T>
struct PerceptronBlock {
  std::int64_t n;
  const std::int64_t *centres, *neighbours;  ///< [n]
  const T* edges;                            ///< [n, n_channels]
  const T* radial;                           ///< [n, n_radial]
};

/// Rows the first values of which are `stride` apart.
template <typename T>
struct PerceptronRows {
  T* data;
  std::int64_t stride;
};

/// The kernels of one instruction set for one type. `hidden` is [n, 2 n_channels].
template <typename T>
struct EdgePerceptronKernels {
  /// hidden = what both atoms of each edge give.
  void (*gather)(const PerceptronProblem<T>& problem, const PerceptronBlock<T>& block, T* hidden);
  /// hidden = silu(hidden); its slopes, where `slopes` is not null.
  void (*activate)(const PerceptronProblem<T>& problem, std::int64_t n, T* hidden, PerceptronRows<T> slopes);
  /// From the gradient of silu to that of its argument, in place; adds it to those of atoms, where they are not null.
  void (*activate_backward)(const PerceptronProblem<T>& problem, const PerceptronBlock<T>& block,
                            PerceptronRows<const T> slopes, T* of_hidden, T* of_centres, T* of_neighbours);
  /// From values and gates [n, 2 n_channels], without their biases, to results: rows of edges, beginning with the
  /// first, or sums of centres, which are added to. Slopes by values, gates and factors, one behind the other, where
  /// `slopes` is not null.
  void (*gate)(const PerceptronProblem<T>& problem, const PerceptronBlock<T>& block, const T* values_and_gates,
               T* results, PerceptronRows<T> slopes);
  /// From the gradients of results to those of values and gates [n, 2 n_channels] and of radial functions [n,
  /// n_radial].
  void (*gate_backward)(const PerceptronProblem<T>& problem, const PerceptronBlock<T>& block,
                        PerceptronRows<const T> slopes, const T* of_results, T* of_values_and_gates, T* of_radial);
};

}  // namespace mlip
