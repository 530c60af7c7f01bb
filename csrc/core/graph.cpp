#include "core/graph.h"

#include <algorithm>
#include <tuple>

namespace mlip {

void Graph::resize_edges(std::int64_t n_edges) {
  centres.resize(n_edges);
  neighbours.resize(n_edges);
  vectors.resize(3 * n_edges);
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
  images.clear();
  shifts.clear();
  node_of.clear();
}

void CandidateEdges::close_centre(int centre) {
  centres.push_back(centre);
  first.push_back(static_cast<std::int64_t>(neighbours.size()));
}

void CandidateEdges::sort_by_distance(const double* positions) {
  struct Candidate {
    double squared;  // distance
    int neighbour, image;
  };
  std::vector<Candidate> sorted;
  for (std::size_t c = 0; c < centres.size(); ++c) {
    const double* const centre = positions + 3 * static_cast<std::int64_t>(centres[c]);
    sorted.clear();
    for (std::int64_t k = first[c]; k < first[c + 1]; ++k) {
      Candidate candidate{0.0, neighbours[k], images.empty() ? 0 : images[k]};
      const double* const neighbour = positions + 3 * static_cast<std::int64_t>(candidate.neighbour);
      for (int axis = 0; axis < 3; ++axis) {
        const double shift = images.empty() ? 0.0 : shifts[candidate.image][axis];
        const double difference = neighbour[axis] - centre[axis] + shift;
        candidate.squared += difference * difference;
      }
      sorted.push_back(candidate);
    }
    std::sort(sorted.begin(), sorted.end(), [](const Candidate& a, const Candidate& b) {
      return std::tie(a.squared, a.neighbour, a.image) < std::tie(b.squared, b.neighbour, b.image);
    });
    for (std::int64_t k = first[c]; k < first[c + 1]; ++k) {
      neighbours[k] = sorted[k - first[c]].neighbour;
      if (!images.empty()) images[k] = sorted[k - first[c]].image;
    }
  }
}

std::vector<int> first_atoms(const CandidateEdges& candidates, std::int64_t n_nodes) {
  std::vector<int> atoms(n_nodes, -1);
  for (int atom = static_cast<int>(candidates.n_atoms()) - 1; atom >= 0; --atom) {
    const int node = candidates.node_of[atom];
    if (node >= 0 && node < n_nodes) atoms[node] = atom;
  }
  return atoms;
}

namespace {

/// Counts the candidates inside the cutoff and overwrites as many of `graph`'s edges with them as it has.
template <bool with_images>
std::int64_t write_edges(const CandidateEdges& candidates, const double* positions, double length_in_angstrom,
                         double cutoff, Graph& graph) {
  const double cutoff_squared = cutoff * cutoff;
  const std::int64_t room = graph.n_edges();
  std::int64_t n_edges = 0;
  for (std::size_t c = 0; c < candidates.centres.size(); ++c) {
    const double* centre = positions + 3 * static_cast<std::int64_t>(candidates.centres[c]);
    const std::int64_t node = candidates.node_of[candidates.centres[c]];
    for (std::int64_t k = candidates.first[c]; k < candidates.first[c + 1]; ++k) {
      const double* neighbour = positions + 3 * static_cast<std::int64_t>(candidates.neighbours[k]);
      double vector[3];
      for (int axis = 0; axis < 3; ++axis) {
        vector[axis] = length_in_angstrom * (neighbour[axis] - centre[axis]);
        if constexpr (with_images) vector[axis] += candidates.shifts[candidates.images[k]][axis];
      }
      const double squared = vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2];
      if (!(squared < cutoff_squared)) continue;
      if (n_edges < room) {
        graph.centres[n_edges] = node;
        graph.neighbours[n_edges] = candidates.node_of[candidates.neighbours[k]];
        std::copy_n(vector, 3, graph.vectors.data() + 3 * n_edges);
      }
      ++n_edges;
    }
  }
  return n_edges;
}

}  // namespace

void refresh_edges(const CandidateEdges& candidates, const double* positions, double length_in_angstrom, double cutoff,
                   Graph& graph) {
  const auto write = candidates.images.empty() ? write_edges<false> : write_edges<true>;
  graph.resize_edges(static_cast<std::int64_t>(graph.centres.capacity()));
  const std::int64_t n_edges = write(candidates, positions, length_in_angstrom, cutoff, graph);
  if (n_edges > graph.n_edges()) {
    // Room is made for what was counted: growing while writing would take twice the memory of what is kept.
    const std::int64_t room = n_edges + n_edges / 32;
    graph.resize_edges(0);
    graph.centres.reserve(room);
    graph.neighbours.reserve(room);
    graph.vectors.reserve(3 * room);
    graph.resize_edges(n_edges);
    write(candidates, positions, length_in_angstrom, cutoff, graph);
  }
  graph.resize_edges(n_edges);
}

void add_forces(const Graph& graph, const std::vector<double>& edge_gradients, double* forces) {
  const std::int64_t n_edges = graph.n_edges();
  for (std::int64_t k = 0; k < n_edges; ++k) {
    double* force_i = forces + 3 * graph.centres[k];
    double* force_j = forces + 3 * graph.neighbours[k];
    for (int axis = 0; axis < 3; ++axis) {
      const double gradient = edge_gradients[3 * k + axis];
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

void add_position_forces(const Evaluation& evaluation, double* forces) {
  for (std::size_t k = 0; k < evaluation.position_gradients.size(); ++k) forces[k] -= evaluation.position_gradients[k];
}

void add_position_virial(const Graph& graph, const Evaluation& evaluation, std::array<double, 9>& total) {
  const auto add = [&total](const double* vectors, const std::vector<double>& gradients) {
    for (std::size_t k = 0; k < gradients.size(); k += 3)
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) total[3 * a + b] -= vectors[k + a] * gradients[k + b];
  };
  add(graph.positions.data(), evaluation.position_gradients);
  add(graph.cell.vectors.data(), evaluation.cell_gradient);
}

void add_atom_virials(const Graph& graph, const std::vector<double>& edge_gradients, double* atom_virials) {
  const std::int64_t n_edges = graph.n_edges();
  for (std::int64_t k = 0; k < n_edges; ++k) {
    double* virial_i = atom_virials + 6 * graph.centres[k];
    double* virial_j = atom_virials + 6 * graph.neighbours[k];
    const double* r = graph.vectors.data() + 3 * k;
    const double* g = edge_gradients.data() + 3 * k;
    for (int c = 0; c < 6; ++c) {
      const int a = virial_rows[c];
      const int b = virial_columns[c];
      // The symmetric part: r_a g_b and r_b g_a agree only in the sum over all edges.
      const double half = -0.25 * (r[a] * g[b] + r[b] * g[a]);
      virial_i[c] += half;
      virial_j[c] += half;
    }
  }
}

void add_centroid_virials(const Graph& graph, const std::vector<double>& edge_gradients, double* atom_virials) {
  const std::int64_t n_edges = graph.n_edges();
  for (std::int64_t k = 0; k < n_edges; ++k) {
    double* virial_j = atom_virials + 9 * graph.neighbours[k];
    const double* r = graph.vectors.data() + 3 * k;
    const double* g = edge_gradients.data() + 3 * k;
    for (int c = 0; c < 9; ++c) virial_j[c] -= r[virial_rows[c]] * g[virial_columns[c]];
  }
}

void add_centroid_virials(const Graph& graph, const Evaluation& evaluation, const std::vector<double>& positions,
                          double* atom_virials) {
  const std::int64_t n_edges = graph.n_edges();
  for (std::int64_t k = 0; k < n_edges; ++k) {
    double* virial_i = atom_virials + 9 * graph.centres[k];
    double* virial_j = atom_virials + 9 * graph.neighbours[k];
    const double* r_i = positions.data() + 3 * graph.centres[k];
    const double* r_ij = graph.vectors.data() + 3 * k;
    const double* g = evaluation.edge_gradients.data() + 3 * k;
    for (int c = 0; c < 9; ++c) {
      const int a = virial_rows[c];
      const int b = virial_columns[c];
      const double from_centre = evaluation.edge_moments[a][3 * k + b] - r_i[a] * g[b];
      virial_i[c] -= from_centre;
      virial_j[c] += from_centre - r_ij[a] * g[b];
    }
  }
}

}  // namespace mlip
