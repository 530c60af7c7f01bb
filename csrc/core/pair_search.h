// The search for all pairs of atoms within a distance, which a NeighbourList asks for where its candidates no longer
// serve: on the host here, on a GPU in model/device_pair_search.h.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/box.h"

namespace mlip {

/// Where a search puts its pairs: lists of the caller, which keep their memory from search to search.
struct FoundPairs {
  std::vector<std::int64_t>& first;         ///< [n_atoms + 1] atom i has the pairs first[i] ... first[i + 1]
  std::vector<int>& neighbours;             ///< [n_pairs]
  std::vector<int>& images;                 ///< [n_pairs] index into `shifts`; empty where nothing is periodic
  std::vector<std::array<int, 3>>& shifts;  ///< each S that occurs
};

class PairSearch {
 public:
  virtual ~PairSearch() = default;

  /// All ordered pairs with |x_j - x_i + S·h| < cutoff, but for an atom with itself at S = 0. A pair at the very cutoff
  /// may be there or not, as distances are rounded. The same input gives the same pairs in the same order.
  /// @param positions [n_atoms, 3] Å, finite; need not be wrapped into the cell
  /// @param n_atoms   at least one
  /// @param box       h, Å; in directions that are not periodic unit vectors perpendicular to the periodic ones
  /// @param cutoff    Å
  /// @throws Error
  virtual void find(const double* positions, std::int64_t n_atoms, const Box& box, const std::array<bool, 3>& periodic,
                    double cutoff, const FoundPairs& found) = 0;
};

/// By vesin, on the host.
class HostPairSearch : public PairSearch {
 public:
  HostPairSearch();
  ~HostPairSearch() override;
  HostPairSearch(HostPairSearch&&) noexcept;

  /// Search on so many threads from now on; one at first. The pairs are the same, in the same order.
  void use_threads(int n) { n_threads_ = n; }

  void find(const double* positions, std::int64_t n_atoms, const Box& box, const std::array<bool, 3>& periodic,
            double cutoff, const FoundPairs& found) override;

 private:
  struct Vesin;
  std::unique_ptr<Vesin> vesin_;
  int n_threads_ = 1;
};

}  // namespace mlip
