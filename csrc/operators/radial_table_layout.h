// How a table of radial weights over the distance is laid out, for the CPU's kernels and for who calls them.
//
// A table has intervals of one width, `step`. With i = floor(r / step), where outside of the table i is the nearest
// interval, and s = r / step - i it is one of
//
//   splines      [n_intervals + 5, n_weights]: w(r) = Σ_{k=0..5} B_k(s) table[i + k], B_k the pieces of the uniform
//                B-spline of degree five. Neighbouring intervals share five of their six rows. With a `kink`, the
//                number of a knot, the intervals on its two sides share none: the table has five rows more, and the
//                intervals from the kink on begin five rows later. Derivatives may jump there, as those of cutoff
//                functions of several pieces do.
//   polynomials  [n_intervals, 6, n_weights]: w(r) = Σ_{k=0..5} s^k table[i, k]. Files of before splines have these.
//
// C. de Boor, A Practical Guide to Splines (1978), chapter IX. Free functions are static: see simd.h.
#pragma once

#include <cstdint>

namespace mlip {

struct RadialTableLayout {
  bool is_spline;
  std::int64_t n_intervals;
  std::int64_t n_rows;  ///< of each table
  std::int64_t kink;    ///< n_intervals where there is none
  double inverse_step;  ///< 1/Å
};

static inline std::int64_t first_row(const RadialTableLayout& layout, std::int64_t interval) {
  return layout.is_spline ? interval + (interval < layout.kink ? 0 : 5) : 6 * interval;
}

/// Polynomials of s: Σ_{k > j} B_k, j = 0..4, times 120; of each power of s its five coefficients, and three zeros.
///
/// With the differences d_j between the rows c_j of an interval, w = c_0 + Σ_j sums_j d_j and dw/ds = Σ_j sums_j' d_j.
/// A slope is made in this way: from the rows themselves it would be a small sum of large terms.
constexpr double sums_of_spline[6][8] = {{119, 93, 27, 1, 0},   {5, 55, 55, 5, 0},   {-10, -30, 30, 10, 0},
                                         {10, -10, -10, 10, 0}, {-5, 15, -15, 5, 0}, {1, -4, 6, -4, 1}};

}  // namespace mlip
