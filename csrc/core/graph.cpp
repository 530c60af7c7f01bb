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
  first.assign(1, 0);
  neighbours.clear();
  node_of.clear();
}

void CandidateEdges::close_centre(int centre) {
  centres.push_back(centre);
  first.push_back(static_cast<std::int64_t>(neighbours.size()));
}

void refresh_edges(const CandidateEdges& candidates, const double* positions, double length_in_angstrom, double cutoff,
                   Graph& graph) {
  const double cutoff_squared = cutoff * cutoff;
  const auto visit_edges = [&](auto&& visit) {
    for (std::size_t c = 0; c < candidates.centres.size(); ++c) {
      const double* centre = positions + 3 * static_cast<std::int64_t>(candidates.centres[c]);
      for (std::int64_t k = candidates.first[c]; k < candidates.first[c + 1]; ++k) {
        const double* neighbour = positions + 3 * static_cast<std::int64_t>(candidates.neighbours[k]);
        const double vector[3] = {length_in_angstrom * (neighbour[0] - centre[0]),
                                  length_in_angstrom * (neighbour[1] - centre[1]),
                                  length_in_angstrom * (neighbour[2] - centre[2])};
        const double squared = vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2];
        // Written so that a NaN passes as an edge and is found below.
        if (!(squared >= cutoff_squared)) visit(c, k, vector, squared);
      }
    }
  };

  // Counted first: growing while filling would take twice the memory of what is kept.
  std::size_t n_edges = 0;
  visit_edges([&](std::size_t, std::int64_t, const double*, double squared) {
    if (!std::isfinite(squared))
      throw Error(
          "atom positions are not finite (NaN or infinity). The simulation has blown up: check the starting "
          "structure, minimise it, or use a smaller timestep");
    ++n_edges;
  });
  if (n_edges > graph.centres.capacity()) {
    graph.clear_edges();
    const std::size_t room = n_edges + n_edges / 32;
    graph.centres.reserve(room);
    graph.neighbours.reserve(room);
    graph.vectors.reserve(3 * room);
  }
  graph.clear_edges();
  visit_edges([&](std::size_t c, std::int64_t k, const double* vector, double) {
    graph.add_edge(candidates.node_of[candidates.centres[c]], candidates.node_of[candidates.neighbours[k]], vector);
  });
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

void add_centroid_virials(const Graph& graph, const std::vector<double>& edge_gradients, double scale,
                          double* atom_virials) {
  const std::int64_t n_edges = graph.n_edges();
  constexpr int rows[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2};
  constexpr int columns[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};
  for (std::int64_t k = 0; k < n_edges; ++k) {
    double* virial_j = atom_virials + 9 * graph.neighbours[k];
    const double* r = graph.vectors.data() + 3 * k;
    const double* g = edge_gradients.data() + 3 * k;
    for (int c = 0; c < 9; ++c) virial_j[c] -= scale * r[rows[c]] * g[columns[c]];
  }
}

}  // namespace mlip
