// Neighbour lists for callers that bring none (ASE, OpenMM): a thin owner of a vesin list.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

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
  struct List;
  std::unique_ptr<List> list_;
};

}  // namespace mlip
