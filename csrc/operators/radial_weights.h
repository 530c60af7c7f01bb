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

/// Of an edge's distance: the interval's first row, and the position in the interval from 0 to 1.
template <typename T>
struct TablePosition {
  const T* rows;
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
    rows = problem.table + (table * layout.n_rows + first_row(layout, interval)) * problem.n_weights;
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

/// What the six rows of an interval are multiplied with.
template <typename T>
MLIP_INLINE void evaluate_factors(const RadialTableLayout& layout, double s, T (&factors)[6]) {
  if (!layout.is_spline) {
    double power = 1.0;
    for (int k = 0; k < 6; ++k, power *= s) factors[k] = static_cast<T>(power);
    return;
  }
  double sums[8], slopes[8];
  evaluate_sums_of_spline(s, sums, slopes);
  factors[0] = static_cast<T>(1.0 - sums[0]);
  for (int k = 0; k < 5; ++k) factors[k + 1] = static_cast<T>(sums[k] - sums[k + 1]);
}

/// weights[k] = w_k
template <typename T, typename Problem>
MLIP_INLINE void radial_weights(const Problem& problem, int64_t edge, T* weights) {
  const TablePosition<T> position(problem, edge);
  const int64_t stride = problem.n_weights;
  T factors[6];
  evaluate_factors(problem.layout, position.s, factors);
  for_channels<T, false>(stride, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
    using V = decltype(vector);
    const T* const row = position.rows + u;
    auto w = V::load(row) * factors[0];
    for (int k = 1; k < 6; ++k) w += V::load(row + k * stride) * factors[k];
    V::store(weights + u, w);
  });
}

/// weights[k] = w_k, slopes[k] = dw_k/dr
template <typename T, typename Problem>
MLIP_INLINE void radial_weights(const Problem& problem, int64_t edge, T* weights, T* slopes) {
  const TablePosition<T> position(problem, edge);
  const int64_t stride = problem.n_weights;
  const T inverse_step = static_cast<T>(problem.layout.inverse_step);
  if (!problem.layout.is_spline) {
    const T s = static_cast<T>(position.s);
    for_channels<T, false>(stride, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const T* const row = position.rows + u;
      auto slope = V::load(row + 5 * stride);
      auto w = slope * s + V::load(row + 4 * stride);
      for (int power = 3; power >= 0; --power) {
        slope = slope * s + w;
        w = w * s + V::load(row + power * stride);
      }
      V::store(weights + u, w);
      V::store(slopes + u, slope * inverse_step);
    });
    return;
  }
  double exact[8], exact_slopes[8];
  evaluate_sums_of_spline(position.s, exact, exact_slopes);
  T factors[5], slope_factors[5];
  for (int k = 0; k < 5; ++k) {
    factors[k] = static_cast<T>(exact[k]);
    slope_factors[k] = static_cast<T>(exact_slopes[k]) * inverse_step;
  }
  for_channels<T, false>(stride, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
    using V = decltype(vector);
    const T* const row = position.rows + u;
    auto before = V::load(row), w = before;
    auto next = V::load(row + stride), difference = next - before;
    w += difference * factors[0];
    auto slope = difference * slope_factors[0];
    for (int k = 1; k < 5; ++k) {
      before = next;
      next = V::load(row + (k + 1) * stride);
      difference = next - before;
      w += difference * factors[k];
      slope += difference * slope_factors[k];
    }
    V::store(weights + u, w);
    V::store(slopes + u, slope);
  });
}

}  // namespace
}  // namespace mlip
