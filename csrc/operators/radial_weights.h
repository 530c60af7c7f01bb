// The radial weights of an edge from a table over the distance, for source files that are compiled once per instruction
// set: see simd.h for what may not be used here. radial_table_layout.h has the formulas.
//
// A Problem has these members:
//   n_weights                   of an edge
//   radial                      distances [n_edges]
//   table                       [n_tables, n_rows, n_weights]
//   table_of_edge               [n_edges], or null when there is one table
//   layout                      of each table
#pragma once

#include "operators/radial_table_layout.h"
#include "operators/simd.h"

namespace mlip {
namespace {

/// Of an edge's distance: the interval's first row, counted through all tables, and the position in the interval from 0
/// to 1.
struct TablePosition {
  int64_t row;
  double s;

  template <typename Problem>
  MLIP_INLINE TablePosition(const Problem& problem, int64_t edge) {
    const RadialTableLayout& layout = problem.layout;
    // In float64: the interval's number can be several hundred, and the position is a difference.
    const double position = static_cast<double>(problem.radial[edge]) * layout.inverse_step;
    // Clamped before it is an integer. What is not a number falls into the first interval, and stays what it is.
    const double last = static_cast<double>(layout.n_intervals - 1);
    const int64_t interval = position > 0 ? static_cast<int64_t>(position < last ? position : last) : 0;
    s = position - static_cast<double>(interval);
    const int64_t table = problem.table_of_edge ? problem.table_of_edge[edge] : 0;
    row = table * layout.n_rows + first_row(layout, interval);
  }
};

/// sums_of_spline at s, and their slopes by s. In float64, so that what weights are multiplied with is rounded once.
static MLIP_INLINE void evaluate_sums_of_spline(double s, double (&sums)[8], double (&slopes)[8]) {
  constexpr int L = lanes<double> < 8 ? lanes<double> : 8;
  using V = Vector<double, L>;
  for (int j = 0; j < 8; j += L) {
    auto value = V::load(sums_of_spline[5] + j), slope = value * 0.0;
    for (int power = 4; power >= 0; --power) {
      slope = slope * s + value;
      value = value * s + V::load(sums_of_spline[power] + j);
    }
    V::store(sums + j, value * (1.0 / 120.0));
    V::store(slopes + j, slope * (1.0 / 120.0));
  }
}

/// What the six rows of an edge's interval are multiplied with.
template <typename T>
struct RowFactors {
  int64_t row;  ///< the first of the six, counted through all tables
  T values[6];  ///< w = Σ_k values[k] rows[k]
  T sums[5];    ///< of a spline: w = rows[0] + Σ_k sums[k] (rows[k + 1] - rows[k])
  T slopes[6];  ///< of a spline: dw/dr = Σ_k slopes[k] (rows[k + 1] - rows[k]); else dw/dr = Σ_k slopes[k] rows[k]

  template <typename Problem>
  MLIP_INLINE void set(const Problem& problem, int64_t edge) {
    const TablePosition position(problem, edge);
    const double s = position.s, inverse_step = problem.layout.inverse_step;
    row = position.row;
    if (!problem.layout.is_spline) {
      double power = 1.0;
      slopes[0] = 0;
      for (int k = 0; k < 6; ++k, power *= s) {
        values[k] = static_cast<T>(power);
        if (k < 5) slopes[k + 1] = static_cast<T>((k + 1) * power * inverse_step);
      }
      return;
    }
    double exact[8], exact_slopes[8];
    evaluate_sums_of_spline(s, exact, exact_slopes);
    values[0] = static_cast<T>(1.0 - exact[0]);
    for (int k = 0; k < 5; ++k) {
      values[k + 1] = static_cast<T>(exact[k] - exact[k + 1]);
      sums[k] = static_cast<T>(exact[k]);
      slopes[k] = static_cast<T>(exact_slopes[k] * inverse_step);
    }
  }
};

/// weights[k] = w_k, k < n
/// @param table  row 0, `stride` values before row 1
template <typename T>
MLIP_INLINE void radial_weights(const RowFactors<T>& factors, const T* table, int64_t stride, int64_t n, T* weights) {
  const T* const rows = table + factors.row * stride;
  for_channels<T, false>(n, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
    using V = decltype(vector);
    const T* const row = rows + u;
    auto w = V::load(row) * factors.values[0];
    for (int k = 1; k < 6; ++k) w += V::load(row + k * stride) * factors.values[k];
    V::store(weights + u, w);
  });
}

/// weights[k] = w_k, slopes[k] = dw_k/dr, k < n
template <typename T>
MLIP_INLINE void radial_weights(bool is_spline, const RowFactors<T>& factors, const T* table, int64_t stride, int64_t n,
                                T* weights, T* slopes) {
  const T* const rows = table + factors.row * stride;
  if (!is_spline) {
    for_channels<T, false>(n, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const T* const row = rows + u;
      auto value = V::load(row), w = value * factors.values[0], slope = value * factors.slopes[0];
      for (int k = 1; k < 6; ++k) {
        value = V::load(row + k * stride);
        w += value * factors.values[k];
        slope += value * factors.slopes[k];
      }
      V::store(weights + u, w);
      V::store(slopes + u, slope);
    });
    return;
  }
  for_channels<T, false>(n, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
    using V = decltype(vector);
    const T* const row = rows + u;
    auto before = V::load(row), w = before;
    auto next = V::load(row + stride), difference = next - before;
    w += difference * factors.sums[0];
    auto slope = difference * factors.slopes[0];
    for (int k = 1; k < 5; ++k) {
      before = next;
      next = V::load(row + (k + 1) * stride);
      difference = next - before;
      w += difference * factors.sums[k];
      slope += difference * factors.slopes[k];
    }
    V::store(weights + u, w);
    V::store(slopes + u, slope);
  });
}

/// All weights of an edge, and their slopes unless these are null.
template <typename T, typename Problem>
MLIP_INLINE void radial_weights(const Problem& problem, int64_t edge, T* weights, T* slopes = nullptr) {
  RowFactors<T> factors;
  factors.set(problem, edge);
  const int64_t n = problem.n_weights;
  if (slopes)
    radial_weights(problem.layout.is_spline, factors, problem.table, n, n, weights, slopes);
  else
    radial_weights(factors, problem.table, n, n, weights);
}

}  // namespace
}  // namespace mlip
