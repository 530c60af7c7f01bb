// One structure as engines set it up: by images of its atoms, or by ghosts, folded onto their owners or as nodes of
// their own whose features an exchange brings.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/exchange.h"
#include "core/neighbours.h"

namespace mlip::testing {

/// Ghosts whose owners live in the same process: periodic images.
class ImageExchange : public Exchange {
 public:
  int n_gathered = 0;

  void add_ghost(std::int64_t owner) {
    owners_.push_back(owner);
    const auto [place, is_new] = place_of_.try_emplace(owner, static_cast<std::int64_t>(lent_.nodes.size()));
    if (is_new) lent_.nodes.push_back(owner);
  }
  std::int64_t n_ghosts() const override { return static_cast<std::int64_t>(owners_.size()); }

  void gather(const FeatureRows& rows) override {
    ++n_gathered;
    visit(rows, [](auto& ghost, auto& owner) { ghost = owner; });
  }
  void scatter_add(const FeatureRows& rows) override {
    visit(rows, [](auto& ghost, auto& owner) { owner += ghost; });
  }
  void sum(double*, std::int64_t) override {}  // one rank
  LentNodes* lent() override { return &lent_; }

 private:
  template <typename Body>
  void visit(const FeatureRows& rows, Body&& body) {
    const auto with_type = [&](auto* values) {
      for (std::size_t k = 0; k < owners_.size(); ++k) {
        const std::int64_t owner = rows.only_lent ? place_of_.at(owners_[k]) : owners_[k];
        for (std::int64_t c = 0; c < rows.width; ++c)
          body(values[(rows.n_owned + static_cast<std::int64_t>(k)) * rows.width + c], values[owner * rows.width + c]);
      }
    };
    if (rows.precision == Precision::float32)
      with_type(static_cast<float*>(rows.data));
    else
      with_type(static_cast<double*>(rows.data));
  }

  std::vector<std::int64_t> owners_;  // of the ghosts
  LentNodes lent_;
  std::map<std::int64_t, std::int64_t> place_of_;  // among the lent nodes
};

struct Structure {
  std::string name;
  std::vector<double> positions;  // [n_atoms, 3] Å
  std::array<double, 9> cell;
  std::array<bool, 3> periodic;

  std::int64_t n_atoms() const { return static_cast<std::int64_t>(positions.size() / 3); }
};

/// How an engine sets up the same edges.
enum class Layout {
  images,  ///< atoms and shifts (NeighbourList)
  folded,  ///< ghosts as atoms, folded onto their owners' nodes (LAMMPS on one rank)
  ghosts   ///< ghosts as atoms and nodes (LAMMPS on several ranks), with an exchange
};

struct Setup {
  CandidateEdges candidates;
  std::vector<std::int64_t> node_types;
  std::vector<double> positions;  // of owned atoms and ghosts, Å
  ImageExchange exchange;
};

/// @param node_types type index of each atom
inline Setup set_up(const Structure& structure, std::vector<std::int64_t> node_types, double cutoff, Layout layout,
                    NeighbourList& list) {
  Setup setup;
  setup.positions = structure.positions;
  setup.node_types = std::move(node_types);
  list.update(structure.positions.data(), structure.n_atoms(), structure.cell, structure.periodic, cutoff);
  setup.candidates = list.candidates();
  if (layout == Layout::images || setup.candidates.images.empty()) return setup;

  std::map<std::pair<int, int>, int> ghost_of;
  auto& candidates = setup.candidates;
  for (std::size_t k = 0; k < candidates.neighbours.size(); ++k) {
    const int owner = candidates.neighbours[k];
    const auto& shift = candidates.shifts[candidates.images[k]];
    if (shift == std::array<double, 3>{}) continue;
    const auto [ghost, is_new] =
        ghost_of.try_emplace({owner, candidates.images[k]}, static_cast<int>(candidates.node_of.size()));
    candidates.neighbours[k] = ghost->second;
    if (!is_new) continue;
    for (int axis = 0; axis < 3; ++axis) setup.positions.push_back(structure.positions[3 * owner + axis] + shift[axis]);
    candidates.node_of.push_back(layout == Layout::folded ? owner : static_cast<int>(setup.node_types.size()));
    if (layout == Layout::folded) continue;
    setup.node_types.push_back(setup.node_types[owner]);
    setup.exchange.add_ghost(owner);
  }
  candidates.images.clear();
  candidates.shifts.clear();
  return setup;
}

}  // namespace mlip::testing
