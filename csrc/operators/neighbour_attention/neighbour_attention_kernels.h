// CPU kernels of the operator `mlip::neighbour_attention`, free of torch so that they compile in seconds: all that
// stands between its matrix products, for a block of edges. neighbour_attention.cpp has the formula.
//
// neighbour_attention_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

#include "operators/radial_table_layout.h"

namespace mlip {

/// The sizes of one call, and its node features.
template <typename T>
struct AttentionProblem {
  std::int64_t n_features;               ///< of values; half of the channels of queries, keys and filters
  std::int64_t n_heads;                  ///< that share the first n_features channels
  std::int64_t n_degrees;                ///< heads that share the others
  std::int64_t n_components;             ///< of vectors and harmonics
  std::int64_t n_hidden;                 ///< of the networks of differences, both together
  const std::int64_t* first;             ///< [n_degrees + 1]: components of each degree
  const T *queries, *keys, *values;      ///< [n_owned or n_nodes, 2 n_features or n_features]
  const T* vectors;                      ///< [n_nodes, n_components]
  const T* factors;                      ///< [n_components], of squared differences
  const T *hidden_matrix, *hidden_bias;  ///< [n_degrees, n_hidden], [n_hidden]

  // What radial_weights.h reads; weights are those of filters, which `radial` has where `table` is null.
  std::int64_t n_weights;
  const T *radial, *table;
  const std::int64_t* table_of_edge;
  RadialTableLayout layout;
};

/// Some edges, centre by centre.
template <typename T>
struct AttentionBlock {
  std::int64_t n;
  const std::int64_t *edges, *centres, *neighbours;  ///< [n]
  const T* cutoffs;                                  ///< [n_edges]
  const T* harmonics;                                ///< [n_edges, n_components]
};

/// Gradients by node: of results, which are read, and of the inputs, which are added to. Those of nodes may be null.
template <typename T>
struct AttentionGradients {
  const T *messages, *vector_messages;
  T *queries, *keys, *values, *vectors;
  T *radial, *cutoffs, *harmonics;  ///< by edge, overwritten
};

/// Values of working memory for one call of a kernel.
template <typename T>
std::int64_t scratch_size(const AttentionProblem<T>& problem) {
  constexpr std::int64_t widest_vector = 64 / sizeof(T);
  const std::int64_t n_heads = problem.n_heads + problem.n_degrees;
  return widest_vector * n_heads + 2 * n_heads;  // sums whose lanes are apart, and numbers of an edge for each head
}

/// The kernels of one instruction set for one type.
template <typename T>
struct NeighbourAttentionKernels {
  /// What the filters [n, 2 n_features] get of the distance; and its slopes by the distance, where they are not null.
  void (*weigh)(const AttentionProblem<T>& problem, const AttentionBlock<T>& block, T* filters, T* slopes);
  /// The networks of differences: `sums` [n, n_hidden], before the activation, and `hidden`, after it.
  void (*hide)(const AttentionProblem<T>& problem, const AttentionBlock<T>& block, T* sums, T* hidden, T* scratch);
  /// From the gradient of `hidden` to that of vectors.
  void (*hide_backward)(const AttentionProblem<T>& problem, const AttentionBlock<T>& block, const T* sums,
                        const T* of_hidden, T* of_vectors, T* scratch);
  /// Adds the messages of these edges to those of their centres.
  void (*attend)(const AttentionProblem<T>& problem, const AttentionBlock<T>& block, const T* filters, T* messages,
                 T* vector_messages, T* scratch);
  /// The gradient of `filters` takes their place. `slopes` as `weigh` gave them; null without a table.
  void (*attend_backward)(const AttentionProblem<T>& problem, const AttentionBlock<T>& block,
                          const AttentionGradients<T>& gradients, T* filters, const T* slopes, T* scratch);
};

}  // namespace mlip
