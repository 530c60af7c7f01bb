// Neighbour lists for callers that bring none (ASE, OpenMM). Pairs that a search has found stay candidates, out to a
// skin beyond the cutoff, until an atom has moved by half the skin. A cell may change meanwhile, as under a barostat.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "core/box.h"
#include "core/graph.h"
#include "core/pair_search.h"

namespace mlip {

/// What of the candidates is new.
enum class NewCandidates {
  none,
  shifts,  ///< shifts alone: the cell is another one
  all
};

/// How far any atom is from where the last search found it, Å, for a caller whose positions are elsewhere. NaN is far.
/// @param deformation of the cell since that search: from x to x · deformation, x a row
using FarthestMove = std::function<double(const std::array<double, 9>& deformation)>;

/// Any cell shape, any mix of periodic directions, several images where the cell is small.
class NeighbourList {
 public:
  /// Search on the host with so many threads from now on; one at first. The candidates are the same, in the same order.
  void use_threads(int n) { on_host_.use_threads(n); }

  /// Search by another from now on, which finds the same candidates in an order of its own and must outlive this list;
  /// null: on the host, as at first.
  void use_search(PairSearch* search) { search_ = search; }

  /// Search again where the candidates may miss a pair with |r_ij| < cutoff, in either order, for these positions.
  /// @param positions [n_atoms, 3], Å; need not be wrapped into the cell
  /// @param cell      rows are the cell vectors, Å; vectors of non-periodic directions are ignored
  /// @param cutoff    Å
  /// @return `all` at the first call
  /// @throws Error for positions that are not finite and for a periodic cell of no volume.
  NewCandidates update(const double* positions, std::int64_t n_atoms, const std::array<double, 9>& cell,
                       const std::array<bool, 3>& periodic, double cutoff);

  /// As `update` where that need not search.
  /// @return nothing where a search is due
  std::optional<NewCandidates> follow(std::int64_t n_atoms, const std::array<double, 9>& cell,
                                      const std::array<bool, 3>& periodic, double cutoff,
                                      const FarthestMove& farthest_move);

  /// Of the last update: every atom is a centre and its own node. A search on the host leaves those of each centre
  /// sorted by distance. The object stays the same.
  const CandidateEdges& candidates() const { return candidates_; }

 private:
  /// What candidates were found for, positions and cell apart.
  struct Request {
    std::int64_t n_atoms = -1;
    std::array<bool, 3> periodic{};
    double cutoff = 0.0;
    bool operator==(const Request&) const = default;
  };

  double farthest_move(const double* positions, const std::array<double, 9>& deformation) const;
  void find_candidates(const double* positions, double skin);
  void find_pairs(const double* positions, std::int64_t n_atoms, double cutoff);
  void place_images();

  HostPairSearch on_host_;
  PairSearch* search_ = nullptr;
  Request request_;
  double skin_ = 0.0;                         // Å
  Box box_{};                                 // Å, rows, of the candidates' shifts
  Box searched_box_{};                        // Å, of the last search
  std::vector<double> found_at_;              // [n_atoms, 3] positions of that search, Å
  std::vector<std::array<int, 3>> image_at_;  // S of each of the candidates' shifts
  CandidateEdges candidates_;
};

}  // namespace mlip
