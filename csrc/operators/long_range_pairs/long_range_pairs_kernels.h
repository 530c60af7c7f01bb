// CPU kernels of the operator `mlip::long_range_pairs`, free of torch so that they compile in seconds.
// long_range_pairs.cpp has the formulas.
//
// long_range_pairs_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

namespace mlip {

/// Numbers of a model, in the order in which a call gives them.
template <typename T>
struct PairConstants {
  T coulomb;                               ///< e²/4πε₀, eV Å
  T width;                                 ///< of the smearing of charges, Å
  T cutoff, on;                            ///< Å: the Coulomb law is switched between them to one that ends there
  T potential_at_cutoff, slope_at_cutoff;  ///< 1/Å, 1/Å²
  T dispersion_on;                         ///< Å: dispersion is switched off from here to the cutoff
  T damping;                               ///< of its radius, per seventh root of a polarizability
  T van_der_waals;                         ///< radius, likewise
  T fit[4];                                ///< of an oscillator's width in powers of that radius
  T bohr, hartree;                         ///< Å, eV
};
inline constexpr std::int64_t n_pair_constants = 15;

template <typename T>
struct PairProblem {
  PairConstants<T> constants;
  std::int64_t n_terms;                      ///< of the series of the error function
  const T* terms;                            ///< [n_terms], 2 / (2 k + 1) for k from 1
  T series_end;                              ///< what its argument is not to exceed, unless the function is 1 there
  const std::int64_t* first_edge;            ///< [n_owned + 1]
  const std::int64_t* edge_order;            ///< null when edges are stored centre by centre
  const std::int64_t* neighbours;            ///< [n_edges]
  const T* distances;                        ///< [n_edges] Å
  const T *charges, *polarizabilities, *c6;  ///< [n_nodes] e, a.u., a.u.
};

/// Gradients: of nodes added to, of edges overwritten.
template <typename T>
struct PairGradients {
  const T* energies;  ///< [n_owned]
  T *charges, *polarizabilities, *c6;
  T* distances;
};

/// The kernels of one instruction set for one type. Centres [begin, end) only; a caller runs disjoint ranges in
/// parallel, each with gradients of nodes of its own.
template <typename T>
struct LongRangePairsKernels {
  /// Overwrites energies [n_owned] of these centres.
  void (*forward)(const PairProblem<T>& problem, T* energies, std::int64_t begin, std::int64_t end);
  void (*backward)(const PairProblem<T>& problem, const PairGradients<T>& gradients, std::int64_t begin,
                   std::int64_t end);
};

}  // namespace mlip
