// CPU kernels of the operator `mlip::symmetry_functions`, free of torch so that they compile in seconds.
// symmetry_functions.cpp has the formula.
//
// The neighbours of a centre are taken by element, so that vectors hold neighbours, or pairs of neighbours, whose
// functions belong to the same features: the sum over them is kept in a vector and added up once.
//
// symmetry_functions_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

namespace mlip {

/// Inputs of one call. Edges of centre i are `edge_order[first_edge[i] .. first_edge[i+1])`.
template <typename T>
struct SymmetryFunctionsProblem {
  std::int64_t n_elements;
  std::int64_t n_radial;              ///< radial functions of an element
  std::int64_t n_shifts, n_sections;  ///< angular functions of two elements: one of each shift and section
  std::int64_t n_angular;             ///< n_shifts n_sections
  std::int64_t n_features;            ///< of an atom
  const T* radial_shifts;             ///< [n_radial] Å
  const T* angular_shifts;            ///< [n_shifts] Å
  const T* cosines;                   ///< [n_sections] of the angles
  const T* sines;
  T radial_eta, angular_eta;  ///< Å⁻²
  T zeta;
  T radial_cutoff, angular_cutoff;  ///< Å

  const std::int64_t* first_edge;
  const std::int64_t* edge_order;  ///< null when edges are stored centre by centre
  std::int64_t capacity;           ///< capacity_for the most edges of a centre
  const std::int64_t* neighbours;  ///< [n_edges]
  const std::int64_t* node_types;  ///< [n_nodes]
  const T* vectors;                ///< [n_edges, 3] Å
};

/// Neighbours that there is memory for: each element's, and the near ones, fill whole vectors.
template <typename T>
std::int64_t capacity_for(std::int64_t most_edges, std::int64_t n_elements) {
  constexpr std::int64_t widest_vector = 64 / sizeof(T);
  return most_edges + (n_elements + 1) * widest_vector;
}

/// Values of working memory for one call of either kernel.
template <typename T>
std::int64_t scratch_size(const SymmetryFunctionsProblem<T>& problem) {
  constexpr std::int64_t widest_vector = 64 / sizeof(T);
  return 19 * problem.capacity + widest_vector * (problem.n_radial + problem.n_angular + 2 * problem.n_shifts);
}

/// Integers of working memory.
template <typename T>
std::int64_t scratch_indices(const SymmetryFunctionsProblem<T>& problem) {
  return 2 * problem.capacity + 3 * problem.n_elements + 2;
}

/// The kernels of one instruction set for one type. Centres [begin, end) only; a caller runs disjoint ranges in
/// parallel, each with its own working memory.
template <typename T>
struct SymmetryFunctionsKernels {
  /// Overwrites the rows of these centres in features [n_owned, n_features].
  void (*forward)(const SymmetryFunctionsProblem<T>& problem, T* features, std::int64_t begin, std::int64_t end,
                  T* scratch, std::int64_t* indices);
  /// Overwrites the gradients of the edges of these centres in vector_gradients [n_edges, 3].
  void (*backward)(const SymmetryFunctionsProblem<T>& problem, const T* feature_gradients, T* vector_gradients,
                   std::int64_t begin, std::int64_t end, T* scratch, std::int64_t* indices);
};

}  // namespace mlip
