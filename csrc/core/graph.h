// The graph that a model sees, and what is done with the gradients that it returns.
//
// Sign conventions, for the whole project:
//   edge vector   r_ij = r_j - r_i + S·h    (i: centre, j: neighbour, S: integer shift, h: rows are cell vectors)
//   edge gradient g_ij = dE/dr_ij           (eV/Å, E: sum of the owned atomic energies)
//   force         F_i += g_ij, F_j -= g_ij  (F = -dE/dr)
//   virial        W = -Σ r_ij ⊗ g_ij        (eV; the stress, positive in tension, is -W/V)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mlip {

/// Atoms and edges inside the cutoff. Buffers keep their capacity from step to step.
struct Graph {
  std::int64_t n_owned = 0;              ///< nodes [0, n_owned) are owned, the rest are ghosts
  std::vector<std::int64_t> node_types;  ///< [n_nodes] type index in the contract's element list
  std::vector<std::int64_t> centres;     ///< [n_edges] node index, owned
  std::vector<std::int64_t> neighbours;  ///< [n_edges] node index
  std::vector<double> vectors;           ///< [n_edges, 3] Å

  std::int64_t n_nodes() const { return static_cast<std::int64_t>(node_types.size()); }
  std::int64_t n_edges() const { return static_cast<std::int64_t>(centres.size()); }
  void clear_edges();
  void add_edge(std::int64_t centre, std::int64_t neighbour, const double vector[3]);
};

/// What a model returns for a Graph.
struct Evaluation {
  std::vector<double> atomic_energies;  ///< [n_owned] eV
  std::vector<double> edge_gradients;   ///< [n_edges, 3] eV/Å
};

/// Edges to be looked at again at each step, between two rebuilds of an engine's neighbour list.
///
/// An engine's list holds pairs out to cutoff plus skin by *its* atom indices, which include ghosts as
/// separate atoms. `node_of` maps them once to the model's nodes; each step then only takes differences of
/// positions and drops what lies outside the cutoff.
struct CandidateEdges {
  std::vector<std::int64_t> centres;     ///< engine index of the owned centre
  std::vector<std::int64_t> neighbours;  ///< engine index of the neighbour
  std::vector<std::int64_t> node_of;     ///< [engine atoms] node, or -1 for an atom that the model does not see

  void clear();
};

/// Refresh `graph`'s edges from the engine's positions: keep candidates with |r_ij| < cutoff.
/// @param positions       [engine atoms, 3], engine length units
/// @param length_in_angstrom  Å per engine length unit
/// @param cutoff          Å
/// @throws Error when a position is not finite.
void refresh_edges(const CandidateEdges& candidates, const double* positions, double length_in_angstrom, double cutoff,
                   Graph& graph);

/// Forces from edge gradients, in float64: adds `scale * g_ij` to node i and subtracts it from node j.
/// @param forces [n_nodes, 3]; @param scale from eV/Å to the caller's unit.
void add_forces(const Graph& graph, const std::vector<double>& edge_gradients, double scale, double* forces);

/// The virial W = -Σ r_ij ⊗ g_ij, eV, row-major 3x3. It is symmetric for a rotationally invariant energy.
std::array<double, 9> virial(const Graph& graph, const std::vector<double>& edge_gradients);

/// Half of each edge's virial to either end: adds `scale * w` with components xx, yy, zz, xy, xz, yz.
/// @param atom_virials [n_nodes, 6]
void add_atom_virials(const Graph& graph, const std::vector<double>& edge_gradients, double scale,
                      double* atom_virials);

}  // namespace mlip
