// pair_style mlip: a LAMMPS shell around mlip::StepEvaluator.
//
//   pair_style mlip [device cpu|cuda|cuda:N|auto] [threads N] [strict no|yes] [self_test yes|no]
//                   [setting NAME VALUE] ...
//   pair_coeff * * FILE.mlip.pt El1 El2 ...        one element per atom type; NULL under hybrid
//
// Periodic images are folded: a node of the graph is an atom, whatever the number of its ghosts. On several ranks an
// atom of another rank that is a neighbour here becomes a ghost node; the contract says how messages cross ranks.
// exchange: the model asks for the features of ghosts (ghost_exchange.h). halo: ghosts out to the interaction range
// have edges of their own, and every image is a node.
//
// pair_mlip.cpp           the input script's side: options, model, the table at set-up
// pair_mlip_checks.cpp    what the rest of the input may not do
// pair_mlip_compute.cpp   every step: candidates for edges, evaluation, what goes to which atom
// ghost_exchange.cpp      features of ghosts, from the ranks that own them
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/units.h"
#include "ghost_exchange.h"
#include "model/model.h"
#include "model/step.h"
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
  /// "<extra>_flag": set by fix pair before a step whose values it wants.
  void* extract(const char* name, int& dimension) override;
  /// The model's extra outputs by name, for fix pair: [nlocal], null for a name that the model does not have.
  void* extract_peratom(const char* name, int& columns) override;

  int pack_forward_comm(int n, int* list, double* buffer, int pbc_flag, int* pbc) override;
  void unpack_forward_comm(int n, int first, double* buffer) override;

 private:
  void allocate();
  void check_validation(const mlip::SealedArchive& archive);
  /// Give the model its settings, variables by their value now. Collective.
  mlip::SettingValues apply_settings();
  void check_input();
  /// Refuse what hides pairs of the model's atoms from its neighbour list. Collective, once per rebuild of that list.
  void check_hidden_pairs();
  void check_other_styles();
  /// Sets `absent_` too.
  void check_exclusions();
  void check_special_bonds();
  /// Whether types are others than at the last rebuild, on any rank. Collective. Ends the run where the list itself
  /// does not fit any more.
  bool types_have_changed();
  std::string name_of_type(int type) const;  ///< "2 (Cl)"
  void print_setup();
  void print_graph();
  const double* positions() const;  ///< [owned and ghost atoms, 3]; null if there are none
  mlip::Cell cell() const;          ///< the simulation box
  bool takes_positions() const { return model_->contract().positions != mlip::Positions::none; }
  void rebuild_candidates();
  void ask_owners_of_ghosts();
  void plan_exchange();
  mlip::StepRequest wanted();
  void accumulate();
  std::string describe_close_pair() const;  ///< of the last evaluation
  void report_close_pair();
  mlip::Parallel mode() const;
  int hops() const;     ///< rounds of neighbours that have edges of their own on this rank: 1, or layers in halo mode
  double halo() const;  ///< Å: how far ghosts are needed
  /// Ghosts out to `needed` (LAMMPS's length unit), or to what `comm_modify cutoff` asked for, if that is more. With 0
  /// LAMMPS has back what the user asked for.
  void widen_ghost_cutoff(double needed);

  mlip::ModelOptions options_;
  std::vector<std::pair<std::string, std::string>> settings_given_;  // name, and a value or v_NAME of a variable
  bool settings_vary_ = false;                                       // one of them is a variable
  std::string described_settings_;                                   // for the table at set-up
  bool strict_ = false;    // refuse a file without a validation record that holds here
  std::string validated_;  // the table's line on the validation; rank 0
  std::unique_ptr<mlip::Model> model_;
  std::unique_ptr<mlip::StepEvaluator> step_;
  mlip::units::EngineUnits units_{1.0, 1.0};
  std::vector<int> type_to_element_;  // LAMMPS type (from 1) to the contract's type index, -1 for NULL
  double ghost_cutoff_set_ = -1.0;    // comm->cutghostuser as this style left it; another value is the user's
  double ghost_cutoff_of_user_ = 0.0;
  bool setup_printed_ = false;
  bool graph_printed_ = false;
  bool centroid_warned_ = false;
  bool close_pair_reported_ = false;  // in this run

  /// Bits of the groups that `neigh_modify exclude group G all` hides from every other atom: fix gcmc and its like
  /// take atoms out of the system in this way, and so the model does not see them.
  int absent_ = 0;
  std::vector<int> type_at_rebuild_;    // [nlocal]
  std::vector<tagint> tag_at_rebuild_;  // [nlocal]

  mlip::CandidateEdges candidates_;
  std::vector<std::int64_t> node_types_;  // [n_nodes] type index in the contract, owned nodes first
  std::int64_t n_owned_ = 0;
  std::vector<int> atom_of_node_;  // [n_nodes] LAMMPS index of each node
  mlip::GhostExchange exchange_{world};
  std::vector<mlip::GhostExchange::Owner> owner_of_atom_;  // [owned and ghost atoms]

  /// A per-atom output beside energy and forces. Somebody who asks for values without a flag gets them every step.
  struct Extra {
    std::string name;
    int wanted_now = 0;
    bool has_flag = false;
    bool asked_for = false;
    bool wanted() const { return wanted_now || (asked_for && !has_flag); }
    std::vector<double> of_atom;  // [nlocal]
  };
  std::vector<Extra> extras_;

  double seconds_total_ = 0.0;
  double backend_at_start_ = 0.0;
  double exchange_at_start_ = 0.0;
  long n_evaluations_ = 0;
};

}  // namespace LAMMPS_NS
