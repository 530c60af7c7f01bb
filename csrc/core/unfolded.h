// A graph in which every periodic image of an atom is a node of its own, as heat fluxes need it.
//
// An engine folds the images of an atom onto one node: that is cheap, and energies and forces do not notice. A position
// does: what flows between two images has come from another place. Here nodes have places. Those of the folded graph
// stand where their atoms are, and further ones are added for the images that edges reach.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/graph.h"

namespace mlip {

class UnfoldedGraph {
 public:
  /// Once per search for neighbours.
  /// @param folded     as an engine has them: several atoms, or images of an atom, may be one node. The first atom of
  ///                   a node, without a shift, is where the node is
  /// @param node_types [n_folded] of the folded nodes, owned nodes first
  void set_candidates(const CandidateEdges& folded, const std::vector<std::int64_t>& node_types, std::int64_t n_owned);

  /// Find the edges at these positions, and where the nodes are. Arguments as for refresh_edges.
  void refresh(const double* positions, double length_in_angstrom, double cutoff);

  /// The edges of the last refresh. Nodes: n_folded() as in the folded graph, then n_images() images.
  const Graph& graph() const { return graph_; }
  /// The same edges between folded nodes.
  Graph folded() const;

  std::int64_t n_folded() const { return graph_.n_nodes() - n_images(); }
  std::int64_t n_images() const { return static_cast<std::int64_t>(image_of_.size()); }
  /// The folded node of any node.
  std::int64_t folded_node(std::int64_t node) const { return node < n_folded() ? node : image_of_[node - n_folded()]; }
  /// [n_nodes, 3] where the nodes are, Å, from the centre of the owned ones, so that numbers stay small.
  const std::vector<double>& positions() const { return positions_; }

  double bytes() const;

 private:
  /// An atom of the engine at another place.
  struct Image {
    int atom;
    std::array<double, 3> shift;  ///< Å
  };

  CandidateEdges candidates_;           // the engine's atoms, then images_; no shifts
  std::vector<Image> images_;           // what the engine gives as atoms with shifts
  std::vector<int> atom_of_node_;       // [n_nodes]
  std::vector<std::int64_t> image_of_;  // [n_images] folded node
  std::vector<double> atoms_at_;        // [n_atoms, 3] Å, of all candidates' atoms
  Graph graph_;
  std::vector<double> positions_;
};

}  // namespace mlip
