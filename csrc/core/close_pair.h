// Atoms on top of each other: closer than any bond, where no training data reach and a model's energy means nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/graph.h"

namespace mlip {

/// Below this distance no pair of atoms is taken for a bond, Å. Hydrogen's covalent radii alone would allow less.
inline constexpr double shortest_bond = 0.5;

/// Two nodes that are too close.
struct ClosePair {
  std::int64_t centre = -1;  ///< node, -1: there is no such pair
  std::int64_t neighbour = -1;
  double distance = 0.0;  ///< Å
  double expected = 0.0;  ///< Å: half the sum of their covalent radii, or `shortest_bond` if that is more

  bool found() const { return centre >= 0; }
  /// distance / expected; 1 without a pair
  double ratio() const { return found() ? distance / expected : 1.0; }
};

/// Half the covalent radius of each element, Å: two of them add up to the distance that is expected at least.
std::vector<double> half_radii(const std::vector<std::string>& elements);

/// The pair of lowest `ratio` below 1. Costs a comparison per edge.
/// @param half_radii [n_elements] Å, in the order of the graph's node types
ClosePair closest_pair(const Graph& graph, const std::vector<double>& half_radii);

/// The sentence for the user.
/// @param first, second  what the engine calls the two atoms: "12 (Mg)"
std::string describe(const ClosePair& pair, const std::string& first, const std::string& second);

}  // namespace mlip
