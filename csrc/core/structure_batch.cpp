#include "core/structure_batch.h"

#include <limits>

#include "core/error.h"

namespace mlip {

void StructureBatch::update(const std::vector<Structure>& structures, double cutoff) {
  candidates_.clear();
  positions_.clear();
  types_.clear();
  first_.assign(1, 0);
  while (lists_.size() < structures.size()) lists_.emplace_back();
  for (std::size_t k = 0; k < structures.size(); ++k) {
    const Structure& structure = structures[k];
    lists_[k].update(structure.positions.data(), structure.n_atoms(), structure.cell, structure.periodic, cutoff);
    const std::int64_t before = first_.back();
    if (before + structure.n_atoms() > std::numeric_limits<int>::max())
      throw Error("a batch of more than 2^31 atoms. Evaluate fewer structures at a time");
    const CandidateEdges& own = lists_[k].candidates();
    const auto atom = static_cast<int>(before);
    const auto shift = static_cast<int>(candidates_.shifts.size());
    const auto candidate = candidates_.n_candidates();
    for (const int centre : own.centres) candidates_.centres.push_back(atom + centre);
    for (std::size_t c = 1; c < own.first.size(); ++c) candidates_.first.push_back(candidate + own.first[c]);
    for (const int neighbour : own.neighbours) candidates_.neighbours.push_back(atom + neighbour);
    if (own.images.empty()) {  // not periodic
      candidates_.images.resize(candidates_.neighbours.size(), shift);
      candidates_.shifts.push_back({0.0, 0.0, 0.0});
    } else {
      for (const int image : own.images) candidates_.images.push_back(shift + image);
      candidates_.shifts.insert(candidates_.shifts.end(), own.shifts.begin(), own.shifts.end());
    }
    for (const int node : own.node_of) candidates_.node_of.push_back(atom + node);
    positions_.insert(positions_.end(), structure.positions.begin(), structure.positions.end());
    types_.insert(types_.end(), structure.types.begin(), structure.types.end());
    first_.push_back(before + structure.n_atoms());
  }
}

}  // namespace mlip
