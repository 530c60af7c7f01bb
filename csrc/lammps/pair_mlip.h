// pair_style mlip: a LAMMPS shell around mlip::Model.
//
//   pair_style mlip [device cpu|cuda|cuda:N|auto] [threads N]
//   pair_coeff * * FILE.mlip.pt El1 El2 ...        one element per atom type; NULL under hybrid
//
// One rank folds ghosts onto their owners. Several ranks keep ghosts as nodes of the graph and fill their
// features through LAMMPS's own forward and reverse communication whenever the model asks (mlip::Exchange).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/exchange.h"
#include "core/graph.h"
#include "core/model.h"
#include "core/units.h"
#include "pair.h"

namespace LAMMPS_NS {

class PairMLIP : public Pair {
 public:
  explicit PairMLIP(class LAMMPS* lmp);
  ~PairMLIP() override;

  void settings(int narg, char** arg) override;
  void coeff(int narg, char** arg) override;
  void init_style() override;
  double init_one(int i, int j) override;
  void compute(int eflag, int vflag) override;
  void finish() override;
  double memory_usage() override;

  int pack_forward_comm(int n, int* list, double* buffer, int pbc_flag, int* pbc) override;
  void unpack_forward_comm(int n, int first, double* buffer) override;
  int pack_reverse_comm(int n, int first, double* buffer) override;
  void unpack_reverse_comm(int n, int* list, double* buffer) override;

 private:
  /// Answers the model's mlip::ghost_gather with LAMMPS's forward and reverse communication.
  class Communication : public mlip::Exchange {
   public:
    explicit Communication(PairMLIP& pair) : pair_(pair) {}
    void gather(const mlip::FeatureRows& rows) override;
    void scatter_add(const mlip::FeatureRows& rows) override;

   private:
    PairMLIP& pair_;
  };

  void allocate();
  void print_setup();
  void rebuild_candidates();
  void evaluate_and_accumulate();
  int doubles_per_row() const;
  template <typename T>
  void add_rows(int n, const int* list, const double* buffer);

  mlip::ModelOptions options_;
  std::unique_ptr<mlip::Model> model_;
  mlip::units::EngineUnits units_{1.0, 1.0};
  std::vector<int> type_to_element_;  // LAMMPS type (from 1) to the contract's type index, -1 for NULL
  bool setup_printed_ = false;

  mlip::CandidateEdges candidates_;
  mlip::Graph graph_;
  mlip::Evaluation evaluation_;
  std::vector<std::int64_t> atom_of_node_;  // [n_nodes] LAMMPS index of each node
  std::vector<double> node_forces_;         // [n_nodes, 3]
  std::vector<double> node_virials_;        // [n_nodes, 6]
  Communication communication_{*this};
  mlip::FeatureRows rows_{};  // what the communication in progress works on

  double seconds_total_ = 0.0;
  double backend_at_start_ = 0.0;
  long n_evaluations_ = 0;
};

}  // namespace LAMMPS_NS
