// The recurrences of `mlip::edge_harmonics`; formulas in edge_harmonics.cpp. Compiled for tensors, for the CPU and, as
// text, for GPUs, and therefore without a header of the standard library.
#pragma once

#ifdef __CUDACC__
#define MLIP_ON_DEVICE __device__ __forceinline__
#else
#define MLIP_ON_DEVICE inline
#endif

namespace mlip {

/// P_lm at [l² + l + m] for 0 <= m <= l <= l_max, of a number or a column of numbers.
template <typename Value>
MLIP_ON_DEVICE void legendre(const Value& y, const Value& one, int l_max, Value* p) {
  const auto at = [](int l, int m) { return l * l + l + m; };
  p[0] = one;
  for (int m = 0; m <= l_max; ++m) {
    if (m > 0) p[at(m, m)] = p[at(m - 1, m - 1)] * static_cast<double>(2 * m - 1);
    if (m < l_max) p[at(m + 1, m)] = y * p[at(m, m)] * static_cast<double>(2 * m + 1);
    for (int l = m + 2; l <= l_max; ++l)
      p[at(l, m)] =
          (y * p[at(l - 1, m)] * static_cast<double>(2 * l - 1) - p[at(l - 2, m)] * static_cast<double>(l + m - 1)) *
          (1.0 / (l - m));
  }
}

/// c_m and s_m for 0 <= m <= l_max.
template <typename Value>
MLIP_ON_DEVICE void azimuthal(const Value& x, const Value& z, const Value& one, const Value& zero, int l_max, Value* c,
                              Value* s) {
  c[0] = one;
  s[0] = zero;
  for (int m = 1; m <= l_max; ++m) {
    c[m] = z * c[m - 1] - x * s[m - 1];
    s[m] = z * s[m - 1] + x * c[m - 1];
  }
}

/// Direction and length of one edge, and the two families of polynomials, for l <= highest_l. Computed in double: it is
/// little work beside the convolution, and float32 results are then the nearest ones.
template <int highest_l>
struct EdgeGeometry {
  double distance, u[3];
  double p[(highest_l + 1) * (highest_l + 1)], c[highest_l + 1], s[highest_l + 1];

  /// @param vector  three values, Å
  /// @param l_max   at most highest_l
  template <typename T, typename SquareRoot>
  MLIP_ON_DEVICE void set(const T* vector, int l_max, SquareRoot square_root) {
    const double x = vector[0], y = vector[1], z = vector[2];
    distance = square_root(x * x + y * y + z * z);
    const double inverse = distance > 0.0 ? 1.0 / distance : 0.0;
    u[0] = inverse * x;
    u[1] = inverse * y;
    u[2] = inverse * z;
    legendre(u[1], 1.0, l_max, p);
    azimuthal(u[0], u[2], 1.0, 0.0, l_max, c, s);
  }

  /// Y at [l² + l + m], -l <= m <= l.
  /// @param norm  N_lm at [l² + l + m], m >= 0
  template <typename T>
  MLIP_ON_DEVICE void harmonics(const double* norm, int l_max, T* row) const {
    for (int l = 0; l <= l_max; ++l) {
      const int centre = l * l + l;
      row[centre] = static_cast<T>(norm[centre] * p[centre]);
      for (int m = 1; m <= l; ++m) {
        const double scaled = norm[centre + m] * p[centre + m];
        row[centre + m] = static_cast<T>(scaled * c[m]);
        row[centre - m] = static_cast<T>(scaled * s[m]);
      }
    }
  }

  /// dE/d(vector) from dE/d(distance) and dE/dY.
  template <typename T>
  MLIP_ON_DEVICE void gradient(const double* norm, int l_max, T of_distance, const T* of_harmonics, T* result) const {
    double g[3] = {0.0, 0.0, 0.0};  // of the direction, as if its components were independent
    for (int l = 1; l <= l_max; ++l) {
      const int centre = l * l + l;
      g[1] += of_harmonics[centre] * norm[centre] * p[centre + 1];
      for (int m = 1; m <= l; ++m) {
        const double of_c = norm[centre + m] * of_harmonics[centre + m],
                     of_s = norm[centre + m] * of_harmonics[centre - m];
        const double slope = m * p[centre + m];
        if (m < l) g[1] += (of_c * c[m] + of_s * s[m]) * p[centre + m + 1];
        g[2] += slope * (of_c * c[m - 1] + of_s * s[m - 1]);
        g[0] += slope * (of_s * c[m - 1] - of_c * s[m - 1]);
      }
    }
    const double along = g[0] * u[0] + g[1] * u[1] + g[2] * u[2];
    const double inverse = distance > 0.0 ? 1.0 / distance : 0.0;
    for (int k = 0; k < 3; ++k)
      result[k] = static_cast<T>(inverse * (g[k] - along * u[k]) + static_cast<double>(of_distance) * u[k]);
  }
};

}  // namespace mlip
