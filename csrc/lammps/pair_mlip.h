// pair_style mlip: a LAMMPS shell around mlip::Committee, of one model or of several.
//
//   pair_style mlip [device cpu|cuda|cuda:N|auto] [threads N] [strict no|yes] [self_test yes|no] [precision full|tf32]
//                   [drive first|mean] [out_freq N] [out_file FILE] [setting NAME VALUE] ...
//   pair_coeff * * FILE.mlip.pt ... El1 El2 ...        one element per atom type; NULL under hybrid
//
// Several files are a committee: the first drives the simulation, or the mean does, and every out_freq steps a line of
// DeePMD-kit's model_devi.out says how far apart their forces are.
//
// Periodic images are folded: a node of the graph is an atom, whatever the number of its ghosts. On several ranks an
// atom of another rank that is a neighbour here becomes a ghost node; the contract says how messages cross ranks.
// exchange: the model asks for the features of ghosts (ghost_exchange.h). halo: ghosts out to the interaction range
// have edges of their own, and every image is a node.
//
// pair_mlip.cpp           the input script's side: options, model, the table at set-up
// pair_mlip_checks.cpp    what the rest of the input may not do
// pair_mlip_compute.cpp   every step: candidates for edges, evaluation, what goes to which atom
// pair_mlip_deviation.cpp how far apart the members of a committee are, for model_devi.out, thermo and dumps
// ghost_exchange.cpp      features of ghosts, from the ranks that own them
#pragma once

#include <array>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/units.h"
#include "ghost_exchange.h"
#include "model/committee.h"
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
  /// The model's extra outputs by name, "grade", "uncertainty", and "deviation" of a committee, for fix pair: [nlocal],
  /// null for a name that the model does not have.
  void* extract_peratom(const char* name, int& columns) override;

  int pack_forward_comm(int n, int* list, double* buffer, int pbc_flag, int* pbc) override;
  void unpack_forward_comm(int n, int first, double* buffer) override;
  int pack_reverse_comm(int n, int first, double* buffer) override;
  void unpack_reverse_comm(int n, int* list, double* buffer) override;

  // For fix mlip/guard.

  /// Why there is none of a quantity, "grade", "uncertainty" or "deviation"; "" where there is.
  std::string why_not(const std::string& quantity) const;
  /// At the next evaluation. On every rank.
  void want(const std::string& quantity) { find_extra(quantity)->wanted_next = true; }
  /// [nlocal] of the last evaluation that was to give it; a deviation in LAMMPS's unit of force, an uncertainty in that
  /// of energy; 0 for atoms that the models do not see.
  const std::vector<double>& values_of(const std::string& quantity) { return find_extra(quantity)->of_atom; }
  /// Of the energy of all atoms, in LAMMPS's unit; of the last evaluation that was to give uncertainties.
  double energy_uncertainty() const { return energy_uncertainty_; }
  /// What the last evaluation gave to LAMMPS: [nlocal, 3], LAMMPS's unit of force. Collective.
  std::vector<double> model_forces();
  /// "37 (Si)"
  std::string name_of_atom(int i) const;
  /// An owned atom's nearest neighbours: "12 (Si) at 1.98 Å, 40 (O) at 2.10 Å"
  std::string surroundings(int i) const;
  /// Chemical symbol; "" for a type that the models do not see.
  std::string element_of_type(int type) const;
  const mlip::units::EngineUnits& units() const { return units_; }

 private:
  /// The atoms that models see, as nodes of a graph. Models with equal hops share them.
  struct Nodes {
    int hops = 1;  ///< rounds of neighbours that have edges of their own on this rank: 1, or layers in halo mode
    mlip::CandidateEdges candidates;
    std::vector<std::int64_t> types;  ///< [n_nodes] type index in the first model's contract, owned nodes first
    std::int64_t n_owned = 0;
    std::vector<int> atoms;  ///< [n_nodes] LAMMPS index of each node
  };

  void allocate();
  /// Of all files, on this rank. @throws mlip::Error
  std::vector<mlip::SealedArchive> load(const std::vector<std::string>& files);
  /// @return for the table at set-up, on rank 0
  std::string check_validation(const mlip::SealedArchive& archive);
  /// Give the models their settings, variables by their value now. Collective.
  std::vector<mlip::SettingValues> apply_settings();
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
  void rebuild_candidates();
  void find_nodes(Nodes& nodes);
  void ask_owners_of_ghosts();
  void plan_exchange(Nodes& nodes);
  mlip::StepRequest wanted();
  /// Refuse what LAMMPS asks for and a model that drives does not have.
  void check_outputs(const mlip::Contract& contract);
  /// Add the energies, forces and virials of a member that drives to LAMMPS's.
  void accumulate(std::size_t member);
  void keep_extras(const mlip::StepResult& result);
  std::string describe_close_pair() const;  ///< of the last evaluation
  void report_close_pair();
  /// Whether the deviation of this step is asked for.
  bool deviation_wanted() const;
  void open_deviations();
  /// Of one member, of the last evaluation: [nlocal, 3], LAMMPS's unit of force. Collective.
  std::vector<double> forces_of(std::size_t member);
  /// Of the last evaluation, which was with all members. Collective.
  void find_deviations();
  void write_deviations(const mlip::DeviationSummary& summary);
  const Nodes& nodes_of(std::size_t member) const { return node_sets_[node_set_of_[member]]; }
  int hops(std::size_t member) const;  ///< as Nodes::hops
  int most_hops() const;
  double halo() const;  ///< Å: how far ghosts are needed
  /// Ghosts out to `needed` (LAMMPS's length unit), or to what `comm_modify cutoff` asked for, if that is more. With 0
  /// LAMMPS has back what the user asked for.
  void widen_ghost_cutoff(double needed);

  mlip::ModelOptions options_;
  std::vector<std::pair<std::string, std::string>> settings_given_;  // name, and a value or v_NAME of a variable
  bool settings_vary_ = false;                                       // one of them is a variable
  std::vector<std::string> described_settings_;                      // of each model, for the table at set-up
  bool strict_ = false;  // refuse a file without a validation record that holds here
  std::vector<std::unique_ptr<mlip::Model>> models_;
  std::vector<std::string> validated_;  // of each model, the table's line on the validation; rank 0
  std::unique_ptr<mlip::Committee> committee_;
  mlip::Model* model_ = nullptr;         // the first
  mlip::StepEvaluator* step_ = nullptr;  // the first's
  mlip::units::EngineUnits units_{1.0, 1.0};
  std::vector<int> type_to_element_;  // LAMMPS type (from 1) to the first contract's type index, -1 for NULL
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

  std::vector<Nodes> node_sets_;
  std::vector<std::size_t> node_set_of_;  // [n_members]
  mlip::GhostExchange exchange_{world};
  std::vector<mlip::GhostExchange::Owner> owner_of_atom_;  // [owned and ghost atoms]

  /// A per-atom output beside energy and forces. Somebody who asks for values without a flag gets them every step.
  struct Extra {
    std::string name;
    int wanted_now = 0;
    bool has_flag = false;
    bool asked_for = false;
    bool wanted_next = false;  // at the next evaluation, by a guard
    bool wanted() const { return wanted_now || wanted_next || (asked_for && !has_flag); }
    std::vector<double> of_atom;  // [nlocal]
  };
  std::vector<Extra> extras_;  // of the first model
  Extra grade_;                // likewise
  Extra uncertainty_;          // likewise, of each atom's energy alone, in LAMMPS's unit of energy
  double energy_uncertainty_ = 0.0;
  Extra deviation_;  // of a committee, in LAMMPS's unit of force
  Extra* find_extra(const std::string& name);

  mlip::Drive drive_ = mlip::Drive::first;
  int deviation_every_ = 100;  // steps, 0: no file
  std::string deviation_file_;
  std::ofstream deviations_;           // rank 0
  bigint deviation_step_ = -1;         // of its last line
  std::streampos deviation_line_ = 0;  // where that line begins
  std::vector<double> member_forces_;  // [owned and ghost atoms, 3] of one member, for reverse communication

  double seconds_total_ = 0.0;
  double processor_total_ = 0.0;  // of all threads
  double backend_at_start_ = 0.0;
  double exchange_at_start_ = 0.0;
  long n_evaluations_ = 0;
};

}  // namespace LAMMPS_NS
