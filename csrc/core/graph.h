// The graph that a model sees, and what is done with the gradients that it returns.
//
// Sign conventions, for the whole project:
//   edge vector   r_ij = r_j - r_i + S·h    (i: centre, j: neighbour, S: integer shift, h: rows are cell vectors)
//   edge gradient g_ij = dE/dr_ij           (eV/Å, E: sum of the owned atomic energies)
//   force         F_i += g_ij, F_j -= g_ij  (F = -dE/dr)
//   virial        W = -Σ r_ij ⊗ g_ij        (eV; the stress, positive in tension, is -W/V)
//
// A model that takes positions and cell beside its edges (sums over k-vectors) has two more gradients:
//   position gradient p_i = dE/dx_i         (eV/Å, of owned atoms, at fixed edge vectors and cell)
//   cell gradient     G_a = dE/dh_a         (eV/Å, of each cell vector h_a, at fixed edge vectors and positions)
//   force         F_i -= p_i
//   virial        W -= Σ x_i ⊗ p_i + Σ_a h_a ⊗ G_a    (a strain moves edge vectors, positions and cell alike)
// Its two sums depend on the images at which atoms stand; together they do not. On several ranks E is the energy of all
// ranks, and the cell of each rank counts as a variable of its own: what the ranks have adds up to W.
//
// An atom's own virial, in the centroid form that a heat flux needs (docs/heat-flux.md):
//   W_j = Σ_i (r_i - r_j) ⊗ ∂E_i/∂r_j,   J = Σ_j W_j v_j + Σ_i v_i (E_i + K_i)
// Their sum is W. Where E_i depends on atom i's own edges only (a local model), the whole virial of an edge belongs to
// its neighbour, W_j = -Σ_i r_ij ⊗ g_ij. With messages E_i of a far atom i depends on the edge too, which gradients of
// the total energy do not tell apart: that takes first moments of the gradients, m_ij,ab = Σ_k r_k,a ∂E_k/∂r_ij,b with
// positions r_k of the atoms k whose energies they are. Then
//   W_j = Σ_(edges to j) (m_ij - r_j ⊗ g_ij) + Σ_(edges of j) (r_j ⊗ g_jl - m_jl)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mlip {

/// Memory that a buffer holds, bytes.
template <typename Value>
double bytes_of(const std::vector<Value>& values) {
  return static_cast<double>(values.capacity() * sizeof(Value));
}

struct GraphSize {
  std::int64_t n_owned = 0;
  std::int64_t n_nodes = 0;
  std::int64_t n_edges = 0;
};

/// The periodic cell of an engine.
struct Cell {
  std::array<double, 9> vectors{};  ///< rows, Å; zero where not periodic
  std::array<bool, 3> periodic{};
};

/// Atoms and edges inside the cutoff. Buffers keep their capacity from step to step.
struct Graph {
  std::int64_t n_owned = 0;              ///< nodes [0, n_owned) are owned, the rest are ghosts
  std::vector<std::int64_t> node_types;  ///< [n_nodes] type index in the contract's element list
  std::vector<std::int64_t> centres;     ///< [n_edges] node index, owned (any node in halo mode)
  std::vector<std::int64_t> neighbours;  ///< [n_edges] node index
  std::vector<double> vectors;           ///< [n_edges, 3] Å
  // Of a model that takes them:
  std::vector<double> positions;  ///< [n_owned, 3] Å, in any periodic image
  Cell cell;

  std::int64_t n_nodes() const { return static_cast<std::int64_t>(node_types.size()); }
  std::int64_t n_edges() const { return static_cast<std::int64_t>(centres.size()); }
  GraphSize size() const { return {n_owned, n_nodes(), n_edges()}; }
  void resize_edges(std::int64_t n_edges);
  void add_edge(std::int64_t centre, std::int64_t neighbour, const double vector[3]);
};

/// What a model returns for a Graph.
struct Evaluation {
  std::vector<double> atomic_energies;  ///< [n_owned] eV
  std::vector<double> edge_gradients;   ///< [n_edges, 3] eV/Å
  // Of a model that takes positions:
  std::vector<double> position_gradients;  ///< [n_owned, 3] eV/Å
  std::vector<double> cell_gradient;       ///< [3, 3] eV/Å
  /// Of each axis a, [n_edges, 3]: m_ij,a. eV; with Model::evaluate_moments only.
  std::array<std::vector<double>, 3> edge_moments;
  std::vector<double> features;       ///< [n_owned, the contract's features], if they were asked for
  std::vector<double> grades;         ///< [n_owned] likewise
  std::vector<double> uncertainties;  ///< [n_owned] eV, likewise
  double energy_uncertainty = 0.0;    ///< eV, of the atoms of all ranks, with the uncertainties
};

/// Edges to be looked at again at each step, between two searches for neighbours.
///
/// A list holds pairs out to cutoff plus skin by the indices of its engine's atoms. LAMMPS's include ghosts as separate
/// atoms; other lists name the periodic image instead. `node_of` maps atoms to the model's nodes; each step then only
/// takes differences of positions and drops what lies outside the cutoff. Four bytes per candidate, eight with images:
/// this list is the longest one.
struct CandidateEdges {
  std::vector<int> centres;                   ///< [n_centres] engine index
  std::vector<std::int64_t> first{0};         ///< [n_centres + 1] centre c has candidates first[c] ... first[c + 1]
  std::vector<int> neighbours;                ///< [n_candidates] engine index
  std::vector<int> images;                    ///< [n_candidates] index into `shifts`; empty: no shifts
  std::vector<std::array<double, 3>> shifts;  ///< S·h of each image that occurs, Å
  std::vector<int> node_of;                   ///< [engine atoms] node, or -1 for an atom that the model does not see

  std::int64_t n_candidates() const { return static_cast<std::int64_t>(neighbours.size()); }
  std::int64_t n_atoms() const { return static_cast<std::int64_t>(node_of.size()); }
  void clear();
  /// Add a centre; the neighbours pushed since the last call are its own.
  void close_centre(int centre);
  /// Sort the candidates of each centre by distance, where the caller has no use for their order: kernels then find the
  /// rows of a radial table in the first cache more often, since edges that follow each other have similar lengths.
  /// @param positions [engine atoms, 3], in the unit of `shifts`
  void sort_by_distance(const double* positions);
};

/// @return [n_nodes] of each of the first nodes its first engine atom, which is no ghost if the node has one that is
///         none; -1 for a node without atoms
std::vector<int> first_atoms(const CandidateEdges& candidates, std::int64_t n_nodes);

/// Refresh `graph`'s edges from the engine's positions: keep candidates with |r_ij| < cutoff. Allocates only
/// when there are more edges than ever before.
/// @param positions       [engine atoms, 3], engine length units, finite
/// @param length_in_angstrom  Å per engine length unit
/// @param cutoff          Å
void refresh_edges(const CandidateEdges& candidates, const double* positions, double length_in_angstrom, double cutoff,
                   Graph& graph);

// Sums over edges, in float64. Each adds to what is there.

/// Forces: g_ij to node i and -g_ij to node j.
/// @param forces [n_nodes, 3] eV/Å
void add_forces(const Graph& graph, const std::vector<double>& edge_gradients, double* forces);

/// The virial W = -Σ r_ij ⊗ g_ij, eV, row-major 3x3. It is symmetric for a rotationally invariant energy.
std::array<double, 9> virial(const Graph& graph, const std::vector<double>& edge_gradients);

/// Forces -p_i of owned atoms. @param forces [n_nodes, 3] eV/Å
void add_position_forces(const Evaluation& evaluation, double* forces);

/// What positions and cell add to the virial, -Σ x_i ⊗ p_i - Σ_a h_a ⊗ G_a. @param total row-major 3x3, eV
void add_position_virial(const Graph& graph, const Evaluation& evaluation, std::array<double, 9>& total);

/// Half of each edge's virial to either end, its symmetric part, with components xx, yy, zz, xy, xz, yz.
/// @param atom_virials [n_nodes, 6] eV
void add_atom_virials(const Graph& graph, const std::vector<double>& edge_gradients, double* atom_virials);

/// Each edge's virial to its neighbour, the centroid form of a local model above, with components
/// xx, yy, zz, xy, xz, yz, yx, zx, zy, where w_ab = -r_a g_b.
/// @param atom_virials [n_nodes, 9] eV
void add_centroid_virials(const Graph& graph, const std::vector<double>& edge_gradients, double* atom_virials);

/// The centroid form above of any model, with those components.
/// @param evaluation with gradients and moments
/// @param positions [n_nodes, 3] Å of the centres, from the origin that the moments have
/// @param atom_virials [n_nodes, 9] eV
void add_centroid_virials(const Graph& graph, const Evaluation& evaluation, const std::vector<double>& positions,
                          double* atom_virials);

/// Rows and columns of those components of a 3x3 tensor; the first six are the symmetric ones.
inline constexpr std::array<int, 9> virial_rows = {0, 1, 2, 0, 0, 1, 1, 2, 2};
inline constexpr std::array<int, 9> virial_columns = {0, 1, 2, 1, 2, 2, 0, 0, 1};

}  // namespace mlip
