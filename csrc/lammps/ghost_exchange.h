// mlip::Exchange over MPI: the features of ghost atoms, fetched from the ranks that own them, and sums over all ranks.
//
// LAMMPS's own communication hands every periodic image of an atom on from rank to rank, in up to six messages that
// wait for each other. A model needs each remote atom once: here each pair of ranks exchanges one message, in the
// model's own floating-point type, received straight into the feature matrix.
#pragma once

#include <mpi.h>

#include <cstdint>
#include <vector>

#include "core/exchange.h"

namespace mlip {

class GhostExchange : public Exchange {
 public:
  /// Where a ghost atom lives.
  struct Owner {
    int rank;
    int atom;  ///< its index there
  };

  explicit GhostExchange(MPI_Comm world) : world_(world) {}

  /// Agree with the other ranks on who sends what until the next plan. Collective.
  /// @param ghosts   owner of each ghost node, in the order of the nodes, which is by rank
  /// @param node_of  node of each owned atom
  void plan(const std::vector<Owner>& ghosts, const std::vector<int>& node_of);

  std::int64_t n_ghosts() const override { return n_ghosts_; }
  void gather(const FeatureRows& rows) override;
  void scatter_add(const FeatureRows& rows) override;
  LentNodes* lent() override { return &lent_; }
  void sum(double* values, std::int64_t n) override;

  /// Wall-clock seconds in the calls above since construction, waiting for other ranks included.
  double seconds() const { return seconds_; }

 private:
  /// A rank with which this one shares atoms.
  struct Peer {
    int rank;
    std::int64_t first_ghost;  ///< its atoms here are ghosts first_ghost ... first_ghost + n_ghosts
    int n_ghosts;
    std::vector<int> lent;        ///< nodes of this rank which are ghosts there
    std::vector<int> among_lent;  ///< their places among all lent nodes

    const std::vector<int>& rows(const FeatureRows& of) const { return of.only_lent ? among_lent : lent; }
  };

  std::vector<char*> make_room(std::int64_t row_bytes);

  MPI_Comm world_;
  std::vector<Peer> peers_;
  std::int64_t n_ghosts_ = 0;
  LentNodes lent_;
  std::vector<char> buffer_;  ///< rows of lent atoms, peer by peer
  std::vector<MPI_Request> requests_;
  double seconds_ = 0.0;
};

}  // namespace mlip
