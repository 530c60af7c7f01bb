// Several structures as one graph without edges between them: a model evaluates them in one pass, which for small ones
// saves most of what a pass costs whatever its size.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/graph.h"
#include "core/neighbours.h"

namespace mlip {

struct Structure {
  std::vector<double> positions;    ///< [n_atoms, 3] Å; need not be wrapped into the cell
  std::vector<std::int64_t> types;  ///< [n_atoms] type index in the contract's element list
  std::array<double, 9> cell{};     ///< rows are the cell vectors, Å
  std::array<bool, 3> periodic{};

  std::int64_t n_atoms() const { return static_cast<std::int64_t>(types.size()); }
};

class StructureBatch {
 public:
  /// Find the neighbours of each structure. A structure in the place of one that it moved on from, as replicas and the
  /// images of a path do, keeps its candidates as long as they serve.
  /// @param cutoff Å
  /// @throws Error as NeighbourList::update.
  void update(const std::vector<Structure>& structures, double cutoff);

  const CandidateEdges& candidates() const { return candidates_; }
  const std::vector<double>& positions() const { return positions_; }     ///< [n_atoms, 3] Å, of all
  const std::vector<std::int64_t>& types() const { return types_; }       ///< [n_atoms]
  const std::vector<std::int64_t>& first_atom() const { return first_; }  ///< [n_structures + 1]

 private:
  std::vector<NeighbourList> lists_;  // one for each place in a batch
  CandidateEdges candidates_;
  std::vector<double> positions_;
  std::vector<std::int64_t> types_;
  std::vector<std::int64_t> first_;
};

}  // namespace mlip
