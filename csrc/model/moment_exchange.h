// How adjoints of ghosts go home, and moments with them: between `mlip::ghost_gather` and an engine's exchange.
//
// A model's energies are differentiated four times after one forward pass. The first backward pass is the usual one: it
// carries adjoints λ_n = Σ_i ∂E_i/∂x_n of the features x_n of node n. Three more carry moments
// μ_n = Σ_i r_i ∂E_i/∂x_n, one axis each: they start from weights r_i where the first starts from ones. Both are
// linear, so all of the model's own operators pass them alike. Only a ghost's way home tells them apart: at home its
// surroundings stand elsewhere, by s = r_ghost - r_home, and the positions r_i with them. So
//
//   λ_home += λ_ghost,   μ_home += μ_ghost - s λ_ghost.
//
// That is exact, and it is all: what a message passes between nodes that are where they seem needs no mark.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/exchange.h"
#include "core/unfolded.h"

namespace mlip {

class MomentExchange : public Exchange {
 public:
  /// @param unfolded, engine outlive this object; engine: null where no ghost belongs to another rank
  MomentExchange(const UnfoldedGraph& unfolded, Exchange* engine);

  /// Where ghosts' homes are. Collective, and before the forward pass.
  void find_homes();
  /// The next backward pass carries adjoints.
  void carry_adjoints();
  /// The next backward pass carries moments along an axis; after one that carried adjoints.
  void carry_moments(int axis);

  std::int64_t n_ghosts() const override { return unfolded_.graph().n_nodes() - unfolded_.graph().n_owned; }
  void gather(const FeatureRows& rows) override;
  void scatter_add(const FeatureRows& rows) override;
  /// @throws Error: a sum over all atoms has no place of its own
  void sum(double* values, std::int64_t n) override;

 private:
  template <typename T>
  void gather_rows(const FeatureRows& rows);
  template <typename T>
  void scatter_rows(const FeatureRows& rows);
  FeatureRows of_engine(const FeatureRows& rows) const;

  static constexpr int adjoints = -1;

  const UnfoldedGraph& unfolded_;
  Exchange* engine_;
  int carried_ = adjoints;
  std::size_t n_scattered_ = 0;                    // in this backward pass
  std::vector<std::array<double, 3>> shifts_;      // [n_ghosts] s, Å; of an image its folded node is the home
  std::vector<std::vector<char>> ghost_adjoints_;  // of each scatter_add: rows of all ghosts, in the features' type
};

}  // namespace mlip
