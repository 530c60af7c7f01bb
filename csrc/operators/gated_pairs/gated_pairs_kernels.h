// CPU kernels of the operator `mlip::gated_pairs` (gated_pairs.cpp), free of torch so that they compile in seconds:
// what stands between its matrix products, over edges [begin, end). Rows are dense; `both` are the values' channels and
// then the gates'.
#pragma once

#include <cstdint>

namespace mlip {

/// The kernels of one instruction set for one type.
template <typename T>
struct GatedPairsKernels {
  /// inputs [n_edges, 2 channels] = of_centres[centre] + of_neighbours[neighbour] + of_edges; activated = silu(inputs).
  void (*sum)(const T* of_centres, const T* of_neighbours, const T* of_edges, const std::int64_t* centres,
              const std::int64_t* neighbours, std::int64_t channels, T* inputs, T* activated, std::int64_t begin,
              std::int64_t end);
  /// results [n_edges, channels] = silu(value) sigmoid(gate) factor, of `both` [n_edges, 2 channels].
  void (*gate)(const T* both, const T* factors, std::int64_t channels, T* results, std::int64_t begin,
               std::int64_t end);
  /// From dE/d(results) to dE/d(both) and dE/d(factors), which it overwrites.
  void (*gate_backward)(const T* gradients, const T* both, const T* factors, std::int64_t channels, T* both_gradients,
                        T* factor_gradients, std::int64_t begin, std::int64_t end);
  /// From dE/d(activated) to dE/d(inputs), in the same place.
  void (*activated_backward)(const T* inputs, std::int64_t channels, T* gradients, std::int64_t begin,
                             std::int64_t end);
};

}  // namespace mlip
