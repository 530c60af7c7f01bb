// Bounds and norms of `mlip::edge_harmonics`; formulas in edge_harmonics.cpp.
#pragma once

#include <array>
#include <cmath>

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

}  // namespace mlip
