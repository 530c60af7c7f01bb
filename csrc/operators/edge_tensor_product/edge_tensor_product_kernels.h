// CPU kernels of the operator `mlip::edge_tensor_product`, free of torch so that they compile in seconds.
//
// The operator is the message and the sum over neighbours of an equivariant convolution ('uvu' tensor product of
// e3nn: every channel u of the node features meets the one channel of the edge harmonics). For centre i,
// path p = (l1, l2, l3) and channel u
//
//   out[i][m3][u] = Σ_{edges e of i} w[e][p, u] Σ_{m1} c[m1][m3] x[j(e)][m1][u],  c[m1][m3] = Σ_{m2} C_p[m1, m2, m3]
//   Y[e][m2]
//
// Layout: component-major. A block of irreps `channels x l` is stored as [2l+1][channels], so that one value of c
// multiplies a row of neighbouring channels: the loops over channels vectorise, and nothing is kept per edge.
//
// The pass back, with g = dE/dout, makes D once for each centre; an edge then needs no c:
//
//   D[m1][m2][u] = Σ_{m3} C_p[m1, m2, m3] g[m3][u],   b[m1][u] = Σ_{m2} D[m1][m2][u] Y[m2]
//   dE/dw[u] = Σ_{m1} x[m1][u] b[m1][u],   dE/dx[m1][u] = w[u] b[m1][u],
//   dE/dY[m2] = Σ_u w[u] Σ_{m1} x[m1][u] D[m1][m2][u]
//
// edge_tensor_product_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

#include "operators/radial_table_layout.h"

namespace mlip {

/// One path of the tensor product. Offsets and strides in values, not bytes.
template <typename T>
struct TensorProductPath {
  int n1, n2, n3;                ///< components 2l+1 of node features, edge harmonics and output
  std::int64_t channels;         ///< u
  std::int64_t features;         ///< where the block [n1][u] starts in a node's row
  std::int64_t harmonics;        ///< where the block [n2] starts in an edge's row of harmonics
  std::int64_t weights;          ///< where the block [u] starts in an edge's row of radial weights
  int output;                    ///< which output tensor
  std::int64_t output_channels;  ///< channels of that tensor: stride between its components
  std::int64_t output_offset;    ///< first channel of this path in it
  const T* coefficients;         ///< [n2][n1 * n3, padded to coupling_stride], path normalisation included
  bool is_scalar;                ///< l2 = 0: c is a multiple of the unit matrix
};

/// Values between two rows of `coefficients`: whole vectors of every instruction set, zero where padded.
static constexpr std::int64_t coupling_stride(int n1, int n3) {
  return (static_cast<std::int64_t>(n1) * n3 + 15) / 16 * 16;
}

/// Inputs of one call. Edges of a centre are `edge_order[first_edge[i] .. first_edge[i+1])`.
template <typename T>
struct TensorProductProblem {
  const TensorProductPath<T>* paths;
  int n_paths;
  const std::int64_t* first_edge;  ///< [n_owned + 1]
  const std::int64_t* edge_order;  ///< [n_edges], or null when edges are stored centre by centre
  const std::int64_t* neighbours;  ///< [n_edges] node index
  const T* features;               ///< [n_nodes, n_features]
  std::int64_t n_features;
  const T* harmonics;  ///< [n_edges, n_harmonics]
  std::int64_t n_harmonics;
  std::int64_t n_weights;
  /// Radial weights [n_edges, n_weights]; or, with a table, distances [n_edges].
  const T* radial;
  const T* table;                     ///< null, or [n_tables, n_rows, n_weights]
  const std::int64_t* table_of_edge;  ///< [n_edges], or null when there is one table
  RadialTableLayout layout;
  const std::int64_t* output_sizes;  ///< [n_outputs] values per centre of each output
  int n_outputs;
};

template <typename T>
struct TensorProductGradients {
  const T* const* outputs;  ///< [n_outputs] -> [n_owned, output_sizes[k]], dE/d(output)
  T* features;              ///< [n_nodes, n_features], added to; null when not wanted
  T* harmonics;             ///< [n_edges, n_harmonics], overwritten
  T* radial;                ///< like `radial`, overwritten
};

/// Values of the largest c of a path, padded.
template <typename T>
static inline std::int64_t largest_coupling(const TensorProductProblem<T>& problem) {
  std::int64_t largest = 0;
  for (int p = 0; p < problem.n_paths; ++p) {
    const std::int64_t size = coupling_stride(problem.paths[p].n1, problem.paths[p].n3);
    if (size > largest) largest = size;
  }
  return largest;
}

/// Values of D of a path, and of all: `contract` in edge_tensor_product_simd.cpp.
template <typename T>
static inline std::int64_t contraction_size(const TensorProductPath<T>& path) {
  return path.n1 * path.n2 * path.channels;
}

template <typename T>
static inline std::int64_t contraction_size(const TensorProductProblem<T>& problem) {
  std::int64_t size = 0;
  for (int p = 0; p < problem.n_paths; ++p) size += contraction_size(problem.paths[p]);
  return size;
}

template <typename T>
static inline std::int64_t largest_channels(const TensorProductProblem<T>& problem) {
  std::int64_t largest = 0;
  for (int p = 0; p < problem.n_paths; ++p)
    if (problem.paths[p].channels > largest) largest = problem.paths[p].channels;
  return largest;
}

/// Edges of a centre that are taken together.
constexpr int edges_of_a_block = 16;

/// Values of working memory for one call of either kernel.
template <typename T>
static inline std::int64_t scratch_size(const TensorProductProblem<T>& problem) {
  constexpr std::int64_t widest_vector = 64 / sizeof(T);
  const std::int64_t weights = edges_of_a_block * largest_channels(problem);
  const std::int64_t forward = edges_of_a_block * largest_coupling(problem) + weights;
  const std::int64_t sums = widest_vector * edges_of_a_block * (problem.n_harmonics + 1);
  const std::int64_t backward = sums + contraction_size(problem) + 2 * weights;  // weights and their slopes
  return forward > backward ? forward : backward;
}

/// The kernels of one instruction set for one type. Centres [begin, end) only; a caller runs disjoint ranges in
/// parallel, each with its own scratch and, in the backward pass, its own `gradients.features`.
template <typename T>
struct TensorProductKernels {
  /// Overwrites outputs[k], [n_owned, output_sizes[k]].
  void (*forward)(const TensorProductProblem<T>& problem, T* const* outputs, std::int64_t begin, std::int64_t end,
                  T* scratch);
  void (*backward)(const TensorProductProblem<T>& problem, const TensorProductGradients<T>& gradients,
                   std::int64_t begin, std::int64_t end, T* scratch);
};

}  // namespace mlip
