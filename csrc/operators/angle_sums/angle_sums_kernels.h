// CPU kernels of the operator `mlip::angle_sums`, free of torch so that they compile in seconds: one centre after the
// other. angle_sums.cpp has the formula.
//
// angle_sums_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

namespace mlip {

/// Most Legendre polynomials of a call.
inline constexpr int most_polynomials = 8;

/// To which cosines are clamped, as M3GNet does.
inline constexpr double largest_cosine = 1.0 - 1e-7;

/// The sizes of one call and what all centres read. Edges are in the order of their centres.
template <typename T>
struct AngleSumsProblem {
  std::int64_t n_polynomials, repeats;
  const std::int64_t* first;  ///< [n_owned + 1]: the edges of each centre
  const T* directions;        ///< [n_edges, 3]
  const T* terms;             ///< [n_edges, n_functions]

  std::int64_t n_functions() const { return n_polynomials * repeats; }
};

/// Values of working memory for one call of a kernel.
/// @param most_edges of a centre
template <typename T>
std::int64_t scratch_size(const AngleSumsProblem<T>& problem, std::int64_t most_edges) {
  constexpr std::int64_t widest_vector = 64 / sizeof(T);
  const std::int64_t room = (most_edges + widest_vector - 1) / widest_vector * widest_vector;
  return room * (3 + 3 + 3 * problem.n_functions());  // directions, their gradients; terms, gradients, sums
}

/// The kernels of one instruction set for one type.
template <typename T>
struct AngleSumsKernels {
  /// `sums` [n_edges, n_functions] of the centres from `begin` to `end` - 1.
  void (*forward)(const AngleSumsProblem<T>& problem, std::int64_t begin, std::int64_t end, T* sums, T* scratch);
  /// From the gradients of the sums to those of directions and terms, of the edges of these centres.
  void (*backward)(const AngleSumsProblem<T>& problem, std::int64_t begin, std::int64_t end, const T* of_sums,
                   T* of_directions, T* of_terms, T* scratch);
};

}  // namespace mlip
