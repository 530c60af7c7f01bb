// CPU kernels of the operator `mlip::adaptive_cutoffs`, free of torch so that they compile in seconds: one atom after
// the other. adaptive_cutoffs.cpp has the equation that they solve.
//
// adaptive_cutoffs_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

namespace mlip {

template <typename T>
struct AdaptiveCutoffsProblem {
  T n_neighbours, cutoff, width;
  const std::int64_t* first;  ///< [n_atoms + 1]: the edges of each atom
  const T* distances;         ///< [n_edges], in the order of centres
};

/// The steps of Newton's method, and bounds that keep it finite. metatrain has the same.
inline constexpr int newton_steps = 10;
inline constexpr double least_slope = 1e-6, boundary = 1e-6;
inline constexpr double least_part_of_cutoff = 1.0 / 16.0;

/// The kernels of one instruction set for one type.
template <typename T>
struct AdaptiveCutoffsKernels {
  /// Cutoffs of the atoms from `begin` to `end` - 1, and what they change by with the distance of each of their edges.
  /// `scratch` has room for the distances of one atom, and a vector.
  void (*solve)(const AdaptiveCutoffsProblem<T>& problem, std::int64_t begin, std::int64_t end, T* cutoffs, T* slopes,
                T* scratch);
};

}  // namespace mlip
