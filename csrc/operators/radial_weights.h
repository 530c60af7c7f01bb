// The radial weights of an edge, stored or from a table over the distance, for source files that are compiled once per
// instruction set: see simd.h for what may not be used here. radial_table.h has the formula.
//
// A Problem has these members:
//   n_weights                   of an edge
//   radial                      weights [n_edges, n_weights]; or, with a table, distances [n_edges]
//   table                       null, or [n_tables, n_intervals, 6, n_weights]
//   table_of_edge               [n_edges], or null when there is one table
//   n_intervals, inverse_step
#pragma once

#include "operators/simd.h"

namespace mlip {
namespace {

template <typename T, bool tabulated>
struct Radial;

template <typename T>
struct Radial<T, false> {
  const T* weights;
  T* gradients;  ///< null in the forward pass

  template <typename Problem>
  MLIP_INLINE Radial(const Problem& problem, int64_t edge, int64_t, T* all_gradients)
      : weights(problem.radial + edge * problem.n_weights),
        gradients(all_gradients ? all_gradients + edge * problem.n_weights : nullptr) {}
  template <typename V>
  MLIP_INLINE typename V::type value(int64_t k) const {
    return V::load(weights + k);
  }
  /// Takes dE/dw and returns w.
  template <typename V>
  MLIP_INLINE typename V::type value(int64_t k, const typename V::type& gradient) {
    V::store(gradients + k, gradient);
    return V::load(weights + k);
  }
  MLIP_INLINE void finish(T*, int64_t) const {}
};

template <typename V>
struct WithSlope {
  typename V::type value, slope;
};

template <typename T>
struct Radial<T, true> {
  const T* coefficients;
  /// Those of the next edge, which lie anywhere in a table of megabytes: the pass back asks for them early. The forward
  /// pass is bound by its loads and gains a fifth without more of them.
  const T* next;
  int64_t stride;
  T s, inverse_step;
  typename Vector<T, lanes<T>>::type slope_sums = {};

  template <typename Problem>
  MLIP_INLINE Radial(const Problem& problem, int64_t edge, int64_t next_edge, T*)
      : stride(problem.n_weights), inverse_step(static_cast<T>(problem.inverse_step)) {
    double position;
    coefficients = interval(problem, edge, position);
    s = static_cast<T>(position);
    next = interval(problem, next_edge, position);
  }
  /// The coefficients of the interval of an edge's distance, and the position in it from 0 to 1.
  template <typename Problem>
  static MLIP_INLINE const T* interval(const Problem& problem, int64_t edge, double& position) {
    // In float64: k can be several hundred, and the position is a difference.
    position = static_cast<double>(problem.radial[edge]) * problem.inverse_step;
    // Clamped before it is an integer. What is not a number falls into the first interval, and stays what it is.
    const double last = static_cast<double>(problem.n_intervals - 1);
    const int64_t k = position > 0 ? static_cast<int64_t>(position < last ? position : last) : 0;
    position -= static_cast<double>(k);
    const int64_t first = problem.table_of_edge ? problem.table_of_edge[edge] * problem.n_intervals : 0;
    return problem.table + (first + k) * 6 * problem.n_weights;
  }
  MLIP_INLINE void prefetch(int64_t k) const {
    for (int power = 0; power < 6; ++power) __builtin_prefetch(next + power * stride + k, 0, 2);
  }
  template <typename V>
  MLIP_INLINE typename V::type value(int64_t k) const {
    const T* c = coefficients + k;
    auto w = V::load(c + 5 * stride);
    for (int power = 4; power >= 0; --power) w = w * s + V::load(c + power * stride);
    return w;
  }
  template <typename V>
  MLIP_INLINE typename V::type value(int64_t k, const typename V::type& gradient) {
    const auto found = value_and_slope<V>(k);
    V::add_to(slope_sums, found.slope * gradient);
    return found.value;
  }
  /// w and dw/ds.
  template <typename V>
  MLIP_INLINE WithSlope<V> value_and_slope(int64_t k) const {
    prefetch(k);
    const T* c = coefficients + k;
    auto slope = V::load(c + 5 * stride);
    auto w = slope * s + V::load(c + 4 * stride);
    for (int power = 3; power >= 0; --power) {
      slope = slope * s + w;
      w = w * s + V::load(c + power * stride);
    }
    return {w, slope};
  }
  /// dE/dr of the edge.
  MLIP_INLINE void finish(T* gradients, int64_t edge) const {
    gradients[edge] = sum_of_lanes<T>(slope_sums) * inverse_step;
  }
};

}  // namespace
}  // namespace mlip
