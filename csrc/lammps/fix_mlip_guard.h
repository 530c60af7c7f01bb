// fix mlip/guard: says when a running simulation comes where the models of pair_style mlip may not know what they
// compute.
//
//   fix ID group mlip/guard N [grade G] [deviation D] [uncertainty U] [action warn|stop] [dump FILE] [max M]
//                             [spacing X] [restart FILE]
//
// Every N steps it compares the grade of each atom of the group with G, the deviation of the force on it over the
// members of a committee with D (LAMMPS's unit of force), and the uncertainty of its energy with U (LAMMPS's unit of
// energy). Above one of them, a message names the worst atom and what is near; its frame is appended to FILE in
// extended XYZ (Å, eV), at most M frames, each with an atom that has moved by X (LAMMPS's unit of length) since the
// last one; `action stop` then writes a restart file and ends LAMMPS.
//
// scalar f_ID      the largest value divided by its threshold, of the last check; above 1 is an alarm
// vector f_ID[k]   1: the largest grade, 2: the largest deviation, 3: atoms above, 4: id of the worst of them or 0,
//                  5: frames written, 6: the largest uncertainty of an atom, 7: the uncertainty of the energy of all
//                  atoms, in the group or not
// per atom f_ID[k] 1: grade, 2: deviation, 3: uncertainty; 0 where it is not guarded
#pragma once

#include <array>
#include <fstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "fix.h"

namespace LAMMPS_NS {

class FixMLIPGuard : public Fix {
 public:
  FixMLIPGuard(class LAMMPS* lmp, int narg, char** arg);
  ~FixMLIPGuard() override;

  int setmask() override;
  void init() override;
  void setup_pre_force(int vflag) override;
  void setup_pre_force_respa(int vflag, int level) override;
  void pre_force(int vflag) override;
  void pre_force_respa(int vflag, int level, int iteration) override;
  void min_pre_force(int vflag) override;
  void setup(int vflag) override;
  void min_setup(int vflag) override;
  void min_post_force(int vflag) override;
  void end_of_step() override;
  void post_run() override;
  double compute_scalar() override;
  double compute_vector(int k) override;
  double memory_usage() override;

 private:
  /// What may be guarded, each atom's value against a threshold.
  struct Quantity {
    const char* keyword;
    const char* name;  ///< for messages
    enum class Unit { none, force, energy } unit;
    double threshold = 0.0;  ///< 0: not guarded
    bool guarded() const { return threshold > 0.0; }
  };
  enum Summary {
    ratio,
    largest_grade,
    largest_deviation,
    above,
    worst_id,
    frames,
    largest_uncertainty,
    energy_uncertainty,
    n_summary
  };

  void parse(int narg, char** arg);
  void open_dump();
  void require_folder_of_restart();
  void require_writable(bool writable, const std::string& name, const char* keyword);
  bool is_due() const;
  /// Ask the pair style for what is guarded, before a step that is due.
  void ask();
  void keep_values();
  /// The summary and the message of this step. Collective.
  void find_worst();
  std::string describe(int atom, const Quantity& quantity, double value) const;
  /// Append this step's frame if it is new. Collective. @return whether it was
  bool write_frame();
  /// @param rows of all atoms, see write_frame
  bool is_new(const std::vector<double>& rows, int columns);
  void write(const std::vector<double>& rows, int columns);
  [[noreturn]] void stop();

  class PairMLIP* pair_ = nullptr;
  std::vector<Quantity> quantities_{{"grade", "a grade", Quantity::Unit::none},
                                    {"deviation", "a force deviation", Quantity::Unit::force},
                                    {"uncertainty", "an energy uncertainty", Quantity::Unit::energy}};
  bool stops_ = false;
  std::string restart_name_ = "mlip_guard.restart";

  std::string dump_name_;
  int max_frames_ = 200;
  double spacing_ = 0.0;  // 0: the default
  std::ofstream dump_;    // rank 0
  int n_frames_ = 0;
  std::unordered_map<tagint, std::array<double, 3>> last_frame_;  // unwrapped positions, rank 0

  std::array<double, n_summary> summary_{};  // of the last check, the same on every rank
  std::string message_;                      // of the last alarm, likewise
  int n_kept_ = 0;                           // atoms that array_atom has room for
  bigint checked_step_ = -1;
  bool warned_ = false;  // in this run
  bigint n_checks_ = 0;  // in this run
  bigint n_alarms_ = 0;
  double worst_of_run_ = 0.0;
};

}  // namespace LAMMPS_NS
