#include "core/unfolded.h"

#include <algorithm>
#include <unordered_map>

namespace mlip {

void UnfoldedGraph::set_candidates(const CandidateEdges& folded, const std::vector<std::int64_t>& node_types,
                                   std::int64_t n_owned) {
  candidates_ = folded;
  candidates_.images.clear();
  candidates_.shifts.clear();
  images_.clear();
  image_of_.clear();
  graph_.n_owned = n_owned;
  graph_.node_types = node_types;
  atom_of_node_.assign(node_types.size(), -1);
  const auto add_node = [&](int atom, int of_node) {
    candidates_.node_of[atom] = static_cast<int>(atom_of_node_.size());
    atom_of_node_.push_back(atom);
    image_of_.push_back(of_node);
    graph_.node_types.push_back(node_types[of_node]);
  };

  for (int atom = 0; atom < static_cast<int>(folded.n_atoms()); ++atom) {
    const int node = folded.node_of[atom];
    if (node < 0) continue;
    if (atom_of_node_[node] < 0)
      atom_of_node_[node] = atom;
    else
      add_node(atom, node);
  }

  std::unordered_map<std::int64_t, int> atom_of_image;
  const auto n_shifts = static_cast<std::int64_t>(folded.shifts.size());
  for (std::size_t k = 0; k < folded.images.size(); ++k) {
    const std::array<double, 3>& shift = folded.shifts[folded.images[k]];
    if (shift == std::array<double, 3>{}) continue;
    const int atom = folded.neighbours[k];
    const auto [found, is_new] =
        atom_of_image.try_emplace(atom * n_shifts + folded.images[k], static_cast<int>(candidates_.n_atoms()));
    if (is_new) {
      images_.push_back({atom, shift});
      candidates_.node_of.push_back(-1);
      add_node(found->second, folded.node_of[atom]);
    }
    candidates_.neighbours[k] = found->second;
  }
}

void UnfoldedGraph::refresh(const double* positions, double length_in_angstrom, double cutoff) {
  atoms_at_.resize(3 * candidates_.n_atoms());
  const std::size_t of_engine = atoms_at_.size() - 3 * images_.size();
  for (std::size_t k = 0; k < of_engine; ++k) atoms_at_[k] = length_in_angstrom * positions[k];
  double* next = atoms_at_.data() + of_engine;
  for (const Image& image : images_)
    for (int axis = 0; axis < 3; ++axis) *next++ = atoms_at_[3 * image.atom + axis] + image.shift[axis];
  refresh_edges(candidates_, atoms_at_.data(), 1.0, cutoff, graph_);

  positions_.clear();
  for (const int atom : atom_of_node_)
    positions_.insert(positions_.end(), atoms_at_.begin() + 3 * atom, atoms_at_.begin() + 3 * (atom + 1));
  for (int axis = 0; axis < 3; ++axis) {
    double centre = 0.0;
    for (std::int64_t node = 0; node < graph_.n_owned; ++node) centre += positions_[3 * node + axis];
    centre /= static_cast<double>(std::max<std::int64_t>(graph_.n_owned, 1));
    for (std::size_t k = axis; k < positions_.size(); k += 3) positions_[k] -= centre;
  }
}

Graph UnfoldedGraph::folded() const {
  Graph result = graph_;
  result.node_types.resize(n_folded());
  for (std::int64_t& node : result.neighbours) node = folded_node(node);
  return result;
}

double UnfoldedGraph::bytes() const {
  return bytes_of(candidates_.first) + bytes_of(candidates_.neighbours) + bytes_of(candidates_.node_of) +
         bytes_of(atoms_at_) + bytes_of(graph_.centres) + bytes_of(graph_.neighbours) + bytes_of(graph_.vectors) +
         bytes_of(graph_.node_types) + bytes_of(positions_);
}

}  // namespace mlip
