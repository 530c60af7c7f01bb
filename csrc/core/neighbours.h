// Neighbour lists for callers that bring none (ASE, OpenMM). vesin finds the pairs; they stay candidates, out to a skin
// beyond the cutoff, until an atom has moved by half the skin.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/graph.h"

namespace mlip {

/// Any cell shape, any mix of periodic directions, several images where the cell is small.
class NeighbourList {
 public:
  NeighbourList();
  ~NeighbourList();
  NeighbourList(NeighbourList&&) noexcept;

  /// Search on so many threads from now on; one at first. The candidates are the same, in the same order.
  void use_threads(int n) { n_threads_ = n; }

  /// Search again where the candidates may miss a pair with |r_ij| < cutoff, in either order, for these positions.
  /// @param positions [n_atoms, 3], Å; need not be wrapped into the cell
  /// @param cell      rows are the cell vectors, Å; vectors of non-periodic directions are ignored
  /// @param cutoff    Å
  /// @return whether there are new candidates; true at the first call
  /// @throws Error for positions that are not finite and for a periodic cell of no volume.
  bool update(const double* positions, std::int64_t n_atoms, const std::array<double, 9>& cell,
              const std::array<bool, 3>& periodic, double cutoff);

  /// Whether `update` would find nothing to do, for a caller whose positions are elsewhere.
  /// @param farthest_move how far any atom is from where the last search found it, Å; NaN counts as far
  bool holds(std::int64_t n_atoms, const std::array<double, 9>& cell, const std::array<bool, 3>& periodic,
             double cutoff, double farthest_move) const;

  /// Of the last update: every atom is a centre and its own node. The object stays the same.
  const CandidateEdges& candidates() const { return candidates_; }

 private:
  /// What candidates were found for, positions apart.
  struct Request {
    std::int64_t n_atoms = -1;
    std::array<double, 9> cell{};
    std::array<bool, 3> periodic{};
    double cutoff = 0.0;
    bool operator==(const Request&) const = default;
  };
  struct Search;

  /// Two atoms that have come closer by the skin at the most were among the candidates before.
  bool serves(double farthest_move) const { return farthest_move <= 0.5 * skin_; }
  double farthest_move(const double* positions) const;
  void find_candidates(const double* positions, double skin);
  void find_pairs(const double* positions, std::int64_t n_atoms, double cutoff);

  std::unique_ptr<Search> search_;
  Request request_;
  int n_threads_ = 1;
  double skin_ = 0.0;             // Å
  std::vector<double> found_at_;  // [n_atoms, 3] positions of that search, Å
  CandidateEdges candidates_;
};

}  // namespace mlip
