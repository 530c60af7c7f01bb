// What the implementations of `mlip::edge_harmonics` (reference, CPU, GPU) share: bounds, norms and checks of
// arguments; formulas in edge_harmonics.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cmath>
#include <cstdint>

namespace mlip {

constexpr int highest_l = 10;
constexpr int highest_size = (highest_l + 1) * (highest_l + 1);

/// N_lm at [l² + l + m], m >= 0.
inline std::array<double, highest_size> harmonic_norms() {
  std::array<double, highest_size> result{};
  for (int l = 0; l <= highest_l; ++l) {
    double square = 2 * l + 1;
    result[l * l + l] = std::sqrt(square);
    square *= 2;
    for (int m = 1; m <= l; ++m) {
      square /= (l + m) * (l - m + 1);
      result[l * l + l + m] = std::sqrt(square);
    }
  }
  return result;
}

/// @throws c10::Error
inline void check_edge_vectors(const at::Tensor& vectors, std::int64_t l_max) {
  TORCH_CHECK(vectors.dim() == 2 && vectors.size(1) == 3 && vectors.is_floating_point(), "edge_harmonics: vectors are ",
              vectors.sizes(), ", expected floating-point [n_edges, 3]");
  TORCH_CHECK(l_max >= 0 && l_max <= highest_l, "edge_harmonics: l_max is ", l_max, ", expected 0 to ", highest_l);
}

/// Of the vectors, and of the gradients of their lengths and harmonics. @throws c10::Error
inline void check_harmonic_gradients(const at::Tensor& distances_gradient, const at::Tensor& harmonics_gradient,
                                     const at::Tensor& vectors, std::int64_t l_max) {
  check_edge_vectors(vectors, l_max);
  const std::int64_t n_edges = vectors.size(0), size = (l_max + 1) * (l_max + 1);
  TORCH_CHECK(distances_gradient.numel() == n_edges && harmonics_gradient.numel() == n_edges * size &&
                  distances_gradient.scalar_type() == vectors.scalar_type() &&
                  harmonics_gradient.scalar_type() == vectors.scalar_type(),
              "edge_harmonics_backward: a gradient has the wrong shape or type");
}

}  // namespace mlip
