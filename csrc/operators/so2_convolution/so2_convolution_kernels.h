// CPU kernels of the operator `mlip::so2_convolution`, free of torch so that they compile in seconds: all that stands
// between its matrix products, for a block of edges. so2_convolution.cpp has the formula and the order of rows.
//
// so2_convolution_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

namespace mlip {

inline constexpr std::int64_t largest_degree = 8;

/// The components of a message in the frame of its edge, which are the rows of the edge's rotation.
struct MessageRows {
  std::int64_t l_max;
  std::int64_t n_rows;
  std::int64_t n_components;         ///< (l_max+1)² of a node
  const std::int64_t* first;         ///< [l_max + 2]: the rows of degree l are of_degree[first[l] .. first[l+1])
  const std::int64_t* of_degree;     ///< [n_rows]
  std::int64_t n_pairs;              ///< of l and |m|, in the order of the rows; the first l_max + 1 have m = 0
  const std::int64_t *plus, *minus;  ///< [n_pairs]: rows of m and -m; one row, for m = 0
};

/// Some edges of one call.
template <typename T>
struct EdgeBlock {
  std::int64_t n;
  const std::int64_t *edges, *centres, *neighbours;  ///< [n]
  const T* rotations;                                ///< [n_edges, n_rows, n_components]
  const T* envelope;                                 ///< [n_edges]
};

/// Rows of the edges of a block: `width` values each, one row after the other.
template <typename T>
struct BlockRows {
  T* data;              ///< row 0 of the first edge
  std::int64_t stride;  ///< from edge to edge
  std::int64_t width;
};

/// The kernels of one instruction set for one type. D is the rotation of an edge.
template <typename T>
struct SO2ConvolutionKernels {
  /// y[edge][row][first + u] = Σ_k D[row][k] x[node][k][u] of `channels` channels u, where node = nodes[edge of the
  /// block]; times the envelope if `enveloped`.
  void (*rotate)(const MessageRows& rows, const EdgeBlock<T>& block, const std::int64_t* nodes, const T* x,
                 std::int64_t channels, bool enveloped, BlockRows<T> y, std::int64_t first);
  /// The transpose of `rotate`, added to x.
  void (*rotate_back)(const MessageRows& rows, const EdgeBlock<T>& block, const std::int64_t* nodes, T* x,
                      std::int64_t channels, bool enveloped, BlockRows<T> y, std::int64_t first);
  /// Gradients of Σ y[row][first + u] D[row][k] x[node][k][u], times the envelope if `enveloped`: added to those of D,
  /// and to those of the envelope where it is there.
  void (*rotation_gradient)(const MessageRows& rows, const EdgeBlock<T>& block, const std::int64_t* nodes, const T* x,
                            std::int64_t channels, bool enveloped, BlockRows<T> y, std::int64_t first, T* of_rotations,
                            T* of_envelope);
  /// y[edge][row] = scalars[edge][pair of the row] x[edge][row]
  void (*scale)(const MessageRows& rows, std::int64_t n, BlockRows<T> x, const T* scalars, BlockRows<T> y);
  /// gradient of y -> those of x, in its place, and of the scalars
  void (*scale_backward)(const MessageRows& rows, std::int64_t n, BlockRows<T> x, const T* scalars,
                         BlockRows<T> gradient, T* of_scalars);
  /// sums[edge][pair - (l_max+1)] = x[edge][row of m] + x[edge][row of -m] of pairs with m > 0
  void (*sum_signs)(const MessageRows& rows, std::int64_t n, BlockRows<T> x, T* sums);
  /// y[edge][row] = x[edge][row] times the sigmoid of the gate of its degree l, which stands (l_max + 1 - l) rows
  /// before row 0; of the row of l = 0 silu.
  void (*gate)(const MessageRows& rows, std::int64_t n, BlockRows<T> x, BlockRows<T> y);
  /// gradient of y -> those of x and of the gates, in the place of x
  void (*gate_backward)(const MessageRows& rows, std::int64_t n, BlockRows<T> x, BlockRows<T> gradient);
  /// y = silu(weight * normalized + bias), where normalized = (x - mean) * inverse, of rows [n, width]. In the place of
  /// x it leaves `normalized`. inverse [n] = (variance + epsilon)^-1/2
  void (*normalize)(std::int64_t n, std::int64_t width, T epsilon, const T* weight, const T* bias, T* x, T* inverse,
                    T* y);
  /// gradient of y -> that of x, in its place
  void (*normalize_backward)(std::int64_t n, std::int64_t width, const T* weight, const T* bias, const T* normalized,
                             const T* inverse, T* gradient);
};

}  // namespace mlip
