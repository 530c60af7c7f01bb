// A graph in which every periodic image of an atom is a node of its own, as heat fluxes need it.
//
// An engine folds the images of an atom onto one node: that is cheap, and energies and forces do not notice. A position
// does: what flows between two images has come from another place. Here nodes have places. Those of the folded graph
// stand at home, and further ones are added for the images that edges reach.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "core/graph.h"

namespace mlip {

class UnfoldedGraph {
 public:
  /// @param folded edges inside the cutoff, centre by centre
  /// @param homes  [n_folded, 3] where the nodes of `folded` are, Å
  /// @param hops   edges between an owned atom and the farthest node that still has edges of its own, counting the
  ///               first as one: 1, or as many as layers where the images have to compute features too
  void build(const Graph& folded, const std::vector<double>& homes, int hops);

  /// Nodes: n_folded() as in the folded graph, then images. Edges likewise; with one hop they are the folded graph's.
  const Graph& graph() const { return graph_; }
  /// The same edges between folded nodes.
  Graph folded() const;

  std::int64_t n_folded() const { return graph_.n_nodes() - static_cast<std::int64_t>(image_of_.size()); }
  /// The folded node of any node.
  std::int64_t folded_node(std::int64_t node) const { return node < n_folded() ? node : image_of_[node - n_folded()]; }
  /// [n_nodes, 3] where the nodes are, Å, from the centre of the owned ones, so that numbers stay small.
  const std::vector<double>& positions() const { return positions_; }

  double bytes() const;

 private:
  using Shift = std::array<double, 3>;

  int find_shift(const Shift& shift);
  int sum_of_shifts(int a, int b);
  std::int64_t find_node(std::int64_t folded_node, int shift);

  Graph graph_;
  std::vector<double> positions_;
  std::vector<std::int64_t> image_of_;  // [n_images] folded node
  std::vector<int> shift_of_image_;     // [n_images] index into shifts_
  std::vector<Shift> shifts_;           // lattice vectors that occur, Å; the first is zero
  std::unordered_map<std::int64_t, int> sums_of_shifts_;
  std::unordered_map<std::int64_t, std::int64_t> node_of_image_;
};

}  // namespace mlip
