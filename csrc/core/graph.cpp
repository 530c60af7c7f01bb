#include "core/graph.h"

#include <cmath>
#include <string>

#include "core/error.h"

namespace mlip {

void Graph::clear_edges() {
  centres.clear();
  neighbours.clear();
  vectors.clear();
}

void Graph::add_edge(std::int64_t centre, std::int64_t neighbour, const double vector[3]) {
  centres.push_back(centre);
  neighbours.push_back(neighbour);
  vectors.insert(vectors.end(), vector, vector + 3);
}

void CandidateEdges::clear() {
  centres.clear();
  neighbours.clear();
  node_of.clear();
}

void refresh_edges(const CandidateEdges& candidates, const double* positions, double length_in_angstrom, double cutoff,
                   Graph& graph) {
  graph.clear_edges();
  const double cutoff_squared = cutoff * cutoff;
  const std::size_t n_candidates = candidates.centres.size();
  for (std::size_t k = 0; k < n_candidates; ++k) {
    const std::int64_t i = candidates.centres[k];
    const std::int64_t j = candidates.neighbours[k];
    const double vector[3] = {length_in_angstrom * (positions[3 * j] - positions[3 * i]),
                              length_in_angstrom * (positions[3 * j + 1] - positions[3 * i + 1]),
                              length_in_angstrom * (positions[3 * j + 2] - positions[3 * i + 2])};
    const double squared = vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2];
    if (squared < cutoff_squared) {
      graph.add_edge(candidates.node_of[i], candidates.node_of[j], vector);
    } else if (!std::isfinite(squared)) {
      throw Error(
          "atom positions are not finite (NaN or infinity). The simulation has blown up: check the starting "
          "structure, minimise it, or use a smaller timestep");
    }
  }
}

void add_forces(const Graph& graph, const std::vector<double>& edge_gradients, double scale, double* forces) {
  const std::int64_t n_edges = graph.n_edges();
  for (std::int64_t k = 0; k < n_edges; ++k) {
    double* force_i = forces + 3 * graph.centres[k];
    double* force_j = forces + 3 * graph.neighbours[k];
    for (int axis = 0; axis < 3; ++axis) {
      const double gradient = scale * edge_gradients[3 * k + axis];
      force_i[axis] += gradient;
      force_j[axis] -= gradient;
    }
  }
}

std::array<double, 9> virial(const Graph& graph, const std::vector<double>& edge_gradients) {
  std::array<double, 9> total{};
  const std::int64_t n_edges = graph.n_edges();
  for (std::int64_t k = 0; k < n_edges; ++k)
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) total[3 * a + b] -= graph.vectors[3 * k + a] * edge_gradients[3 * k + b];
  return total;
}

void add_atom_virials(const Graph& graph, const std::vector<double>& edge_gradients, double scale,
                      double* atom_virials) {
  const std::int64_t n_edges = graph.n_edges();
  constexpr int rows[6] = {0, 1, 2, 0, 0, 1};
  constexpr int columns[6] = {0, 1, 2, 1, 2, 2};
  for (std::int64_t k = 0; k < n_edges; ++k) {
    double* virial_i = atom_virials + 6 * graph.centres[k];
    double* virial_j = atom_virials + 6 * graph.neighbours[k];
    const double* r = graph.vectors.data() + 3 * k;
    const double* g = edge_gradients.data() + 3 * k;
    for (int c = 0; c < 6; ++c) {
      // The symmetric part: r_a g_b and r_b g_a agree only in the sum over all edges.
      const double half = -0.25 * scale * (r[rows[c]] * g[columns[c]] + r[columns[c]] * g[rows[c]]);
      virial_i[c] += half;
      virial_j[c] += half;
    }
  }
}

}  // namespace mlip
