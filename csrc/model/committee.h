// Several models that see the same atoms: which of them drive a simulation, and how far apart they are.
//
// Deviations are standard deviations over the members, as DeePMD-kit defines its model deviation:
//   force of atom i       sqrt(<|F_i - <F_i>|²>)                  eV/Å
//   virial component ab   sqrt(<(W_ab - <W_ab>)²>) / n_atoms      eV
// They say where members disagree, not how large the error is: members that err alike agree.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/settings.h"
#include "model/step.h"

namespace mlip {

/// Whose energies and forces a simulation follows.
enum class Drive {
  first,  ///< those of the first member; the others are evaluated when a deviation is asked for
  mean    ///< the mean over all members
};

/// @throws Error for a name that is neither "first" nor "mean".
Drive parse_drive(const std::string& name);

/// @param forces of each member, [n_atoms, 3]
/// @return [n_atoms] in the unit of the forces
std::vector<double> force_deviations(const std::vector<std::vector<double>>& forces);

/// @param virials of each member, of the whole system
/// @return of each component, for one atom
std::array<double, 9> virial_deviations(const std::vector<std::array<double, 9>>& virials, double n_atoms);

/// What one line of DeePMD-kit's model_devi.out says of a step: max_devi_v, min_devi_v, avg_devi_v (the root of the
/// mean square over the components), max_devi_f, min_devi_f, avg_devi_f (the mean over the atoms).
using DeviationSummary = std::array<double, 6>;

/// How far apart the members are at one step.
struct Deviation {
  std::vector<double> of_atoms;  ///< [n_owned] eV/Å
  DeviationSummary summary{};
};

/// @param atoms [n_atoms] force_deviations of all atoms
/// @param virial virial_deviations
DeviationSummary summarize(const std::vector<double>& atoms, const std::array<double, 9>& virial);

class Committee {
 public:
  /// @param models at least one; they must outlive this object. Type indices of atoms are those of the first.
  /// @throws Error for the mean of energies that are in different frames.
  explicit Committee(std::vector<Model*> models, Drive drive = Drive::first, EdgesOn edges_on = EdgesOn::by_model);

  std::size_t size() const { return models_.size(); }
  Model& model(std::size_t member) const { return *models_[member]; }
  StepEvaluator& step(std::size_t member) const { return *steps_[member]; }

  /// The first `n_driving()` members drive, each with `weight()`.
  std::size_t n_driving() const { return drive_ == Drive::mean ? size() : 1; }
  double weight() const { return 1.0 / static_cast<double>(n_driving()); }
  double largest_cutoff() const;  ///< Å

  /// Of every member: at their defaults, but for those given that it declares.
  /// @throws Error for a name that no member declares, and as SettingValues::set does.
  std::vector<SettingValues> settings(const GivenSettings& given) const;

  /// Type indices of the first member, in the elements of another. @throws Error for an element that it lacks.
  std::vector<std::int64_t> types_of(std::size_t member, const std::vector<std::int64_t>& types) const;

  /// For one member, as StepEvaluator::set_candidates, with types of the first: candidates may reach further than its
  /// cutoff. Members with the same nodes share them.
  void set_candidates(std::size_t member, const CandidateEdges& candidates, const std::vector<std::int64_t>& node_types,
                      std::int64_t n_owned);

  /// As StepEvaluator::set_shifts, for all members.
  void set_shifts();

  /// As StepEvaluator::set_cell, for all members. @throws Error that names the member's file where there are several.
  void set_cell(const Cell& cell);

  /// Those that drive as `wanted` says; then, with `deviation`, forces and virials of all. Results are those of
  /// `step(member)`. Arguments as for StepEvaluator::evaluate; extra outputs, features, grades, uncertainties
  /// and the close pair are the first's.
  /// @throws Error that names the member's file where there are several.
  void evaluate(const double* positions, double length_in_angstrom, const StepRequest& wanted, bool deviation,
                Exchange* exchange = nullptr);

  // Of the last evaluation, where members share their nodes, and all of them are owned.

  /// What drives: the first member's result, or the mean. Valid until the next evaluation.
  const StepResult& result();
  /// After an evaluation with `deviation`.
  Deviation deviation() const;

  /// Of all members, wall-clock time since construction.
  double seconds_in_backend() const;
  /// As StepEvaluator::bytes, of all members.
  double bytes() const;

 private:
  /// Call `body()`; its errors name the file where there are several.
  template <typename Body>
  void of_member(std::size_t member, const Body& body) const;

  std::vector<Model*> models_;
  Drive drive_;
  std::vector<std::unique_ptr<StepEvaluator>> steps_;
  std::vector<std::vector<std::int64_t>> type_maps_;  // of each member: type of each of the first's elements, or -1
  StepResult mean_;
};

}  // namespace mlip
