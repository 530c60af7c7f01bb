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

  /// Write all ordered pairs with |r_ij| < cutoff into `graph`'s edges.
  /// @param positions [n_atoms, 3], Å; need not be wrapped into the cell
  /// @param cell      rows are the cell vectors, Å; vectors of non-periodic directions are ignored
  /// @param cutoff    Å
  /// @throws Error for positions that are not finite and for a periodic cell of no volume.
  void build(const double* positions, std::int64_t n_atoms, const std::array<double, 9>& cell,
             const std::array<bool, 3>& periodic, double cutoff, Graph& graph);

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

  double farthest_move_squared(const double* positions) const;
  void find_candidates(const double* positions, double skin);
  void write_edges(const double* positions, Graph& graph) const;

  std::unique_ptr<Search> search_;
  Request request_;
  double skin_ = 0.0;                          // Å
  std::vector<double> found_at_;               // [n_atoms, 3] positions of that search, Å
  std::vector<std::int64_t> first_;            // [n_atoms + 1] atom i has candidates first_[i] ... first_[i + 1]
  std::vector<int> neighbours_;                // [n_candidates]
  std::vector<int> images_;                    // [n_candidates] index into shifts_
  std::vector<std::array<double, 3>> shifts_;  // S·h of each image that occurs, Å
};

}  // namespace mlip
