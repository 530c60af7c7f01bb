// CPU kernels of the operator `mlip::environment_product`, free of torch so that they compile in seconds.
// environment_product.cpp has the formula.
//
// For each centre and some neighbouring channels, the environment and the coefficients make one matrix for each
// channel, M[m1][m3] = Σ_terms c x env[m2]. All edges of the centre are multiplied with it, so that an edge costs one
// multiplication for each entry of M, and what is kept of a centre stays in the first cache.
//
// environment_product_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

namespace mlip {

/// Inputs of one call. Edges of centre i are `edge_order[first_edge[i] .. first_edge[i+1])`.
template <typename T>
struct EnvironmentProblem {
  std::int64_t n1, n2, n3;             ///< components of features, harmonics and product
  std::int64_t channels;               ///< of all but harmonics
  std::int64_t n_feature_blocks;       ///< 0: features are given by component
  std::int64_t n_weight_blocks;        ///< of the environment's weights
  const std::int64_t* feature_blocks;  ///< [n1] block of each component
  const std::int64_t* weight_blocks;   ///< [n2]

  std::int64_t n_terms, n_entries;       ///< entries: pairs (m1, m3) that have terms, row by row
  const std::int64_t* term_environment;  ///< [n_terms] m2
  const std::int64_t* first_term;        ///< [n_entries + 1] terms of each entry
  const std::int64_t* entry_column;      ///< [n_entries] m3
  const std::int64_t* first_entry;       ///< [n1 + 1] entries of each m1
  const std::int64_t* column_entry;      ///< [n_entries] entries column by column
  const std::int64_t* column_row;        ///< [n_entries] their m1
  const std::int64_t* first_in_column;   ///< [n3 + 1]
  const T* coefficients;                 ///< [n_terms, channels]

  const std::int64_t* first_edge;
  const std::int64_t* edge_order;  ///< null when edges are stored centre by centre
  std::int64_t most_edges;         ///< of a centre
  const T* features;               ///< [n_edges, n1 or n_feature_blocks, channels]
  const T* weights;                ///< [n_edges, n_weight_blocks, channels]
  const T* harmonics;              ///< [n_edges, n2]
};

template <typename T>
struct EnvironmentGradients {
  const T* product;  ///< [n_edges, n3, channels]
  const T* scalars;  ///< [n_edges, channels]
  T* features;       ///< like the inputs, overwritten
  T* weights;
  T* harmonics;
};

/// Edges that one entry of M is multiplied with at a time.
inline constexpr std::int64_t environment_tile = 4;

/// Values of working memory for one call of either kernel.
template <typename T>
std::int64_t scratch_size(const EnvironmentProblem<T>& problem) {
  constexpr std::int64_t widest_vector = 64 / sizeof(T);
  // Vectors: environment, M and their gradients; a tile of features and product; sums of harmonics' gradients.
  return widest_vector * (2 * problem.n2 + 2 * problem.n_entries + environment_tile * (problem.n1 + problem.n3) +
                          problem.most_edges * problem.n2);
}

/// The kernels of one instruction set for one type. Centres [begin, end) only; a caller runs disjoint ranges in
/// parallel, each with its own scratch.
template <typename T>
struct EnvironmentProductKernels {
  /// Overwrites product [n_edges, n3, channels] and scalars [n_edges, channels] of the edges of these centres.
  void (*forward)(const EnvironmentProblem<T>& problem, T* product, T* scalars, std::int64_t begin, std::int64_t end,
                  T* scratch);
  void (*backward)(const EnvironmentProblem<T>& problem, const EnvironmentGradients<T>& gradients, std::int64_t begin,
                   std::int64_t end, T* scratch);
};

}  // namespace mlip
