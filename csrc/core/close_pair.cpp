#include "core/close_pair.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/elements.h"

namespace mlip {

std::vector<double> half_radii(const std::vector<std::string>& elements) {
  std::vector<double> radii;
  for (const std::string& element : elements) radii.push_back(0.5 * covalent_radius(element));
  return radii;
}

ClosePair closest_pair(const Graph& graph, const std::vector<double>& half_radii) {
  const double largest = half_radii.empty() ? 0.0 : *std::max_element(half_radii.begin(), half_radii.end());
  const double reach = std::max(shortest_bond, 2.0 * largest);
  const double reach_squared = reach * reach;
  ClosePair closest;
  double lowest = 1.0;  // squared ratio
  const std::int64_t n_edges = graph.n_edges();
  for (std::int64_t k = 0; k < n_edges; ++k) {
    const double* r = graph.vectors.data() + 3 * k;
    const double squared = r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
    if (squared >= reach_squared) continue;
    const std::int64_t i = graph.centres[k];
    const std::int64_t j = graph.neighbours[k];
    const double expected = std::max(shortest_bond, half_radii[graph.node_types[i]] + half_radii[graph.node_types[j]]);
    if (squared >= lowest * expected * expected) continue;
    lowest = squared / (expected * expected);
    closest = {i, j, std::sqrt(squared), expected};
  }
  return closest;
}

std::string describe(const ClosePair& pair, const std::string& first, const std::string& second) {
  char distances[64];
  std::snprintf(distances, sizeof distances, "%.3f Å apart, closer than %.2f Å", pair.distance, pair.expected);
  return "atoms " + first + " and " + second + " are " + distances +
         ". Training data do not reach such distances, so energy and forces are meaningless. Check the starting "
         "structure";
}

}  // namespace mlip
