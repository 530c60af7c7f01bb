// What a Context holds for an MLIPForce: the loaded model, its neighbour list and buffers.
//
// On OpenMM's CUDA and OpenCL platforms positions are read and forces added on the device (platform_arrays.h), and
// where OpenMM and the model are on the same GPU they never leave it. On all other platforms CustomCPPForceImpl hands
// them over in float64.
#pragma once

#include <openmm/internal/ContextImpl.h>
#include <openmm/internal/CustomCPPForceImpl.h>

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mlip_force.h"
#include "model/model.h"
#include "model/structure_evaluator.h"
#include "platform_arrays.h"

namespace mlip_openmm {

class MLIPForceImpl : public OpenMM::CustomCPPForceImpl {
 public:
  explicit MLIPForceImpl(const MLIPForce& owner);
  const OpenMM::Force& getOwner() const override { return owner_; }

  /// Checks the atoms and the artifact's SHA-256, then loads the model.
  /// @throws OpenMMException, the only kind that OpenMM's worker threads catch; so do all members.
  void initialize(OpenMM::ContextImpl& context) override;

  /// The model's settings are parameters of the Context.
  std::map<std::string, double> getDefaultParameters() override;

  double calcForcesAndEnergy(OpenMM::ContextImpl& context, bool include_forces, bool include_energy,
                             int groups) override;

  /// What CustomCPPForceImpl calls.
  /// @param positions nm; @param forces kJ/mol/nm, zero for particles outside the atom subset; @return kJ/mol
  double computeForce(OpenMM::ContextImpl& context, const std::vector<OpenMM::Vec3>& positions,
                      std::vector<OpenMM::Vec3>& forces) override;

  /// As MLIPForce::deviation.
  mlip::Deviation deviation(OpenMM::ContextImpl& context);
  // Likewise, of the Context's positions.
  std::vector<double> grades(OpenMM::ContextImpl& context);
  Uncertainty uncertainty(OpenMM::ContextImpl& context);
  std::string why_not(const std::string& quantity) const;

 private:
  void check_atoms(int n_particles);
  void load_models();
  void load(const ArtifactFile& file, const mlip::ModelOptions& options);
  /// The force's device, where "cuda" and "auto" mean OpenMM's own GPU if it has one.
  std::string device() const;
  /// @throws OpenMMException for coordinates that are not finite, in OpenMM's own words.
  void check_positions() const;
  /// Of the Context, Å, rows; zeros for a force without periodic boundary conditions.
  std::array<double, 9> cell(OpenMM::ContextImpl& context) const;
  std::array<bool, 3> periodic() const;
  /// Give the models the Context's values of their settings.
  void apply_settings(OpenMM::ContextImpl& context);
  /// Search for neighbours of `positions_` where that is due.
  void update_candidates(const std::array<double, 9>& cell);
  /// Take `positions_` from those of all particles, nm.
  void set_positions(const std::vector<OpenMM::Vec3>& positions);
  /// Evaluate `positions_`; forces are in `result_`. @return kJ/mol
  double evaluate(OpenMM::ContextImpl& context, const mlip::StepRequest& wanted);
  /// Evaluate what is on the GPU; forces are there. @return kJ/mol
  double evaluate_in_place(OpenMM::ContextImpl& context, const mlip::StepRequest& wanted);
  /// Of what `step` returns, which takes the time of models and becomes `result_`. @return kJ/mol
  double energy_of(const std::function<const mlip::StepResult&()>& step);
  mlip::StepRequest wanted(bool include_forces) const;
  /// An evaluation of the Context's positions outside of OpenMM's steps. @return as result_
  const mlip::StepResult& evaluate_now(OpenMM::ContextImpl& context, const mlip::StepRequest& wanted);
  /// Warn, the first time, of atoms on top of each other.
  void report(const mlip::ClosePair& pair);

  const MLIPForce& owner_;
  std::vector<std::unique_ptr<mlip::Model>> models_;
  std::unique_ptr<mlip::StructureEvaluator> structure_;
  const mlip::StepResult* result_ = nullptr;  // of the last step
  std::vector<int> atoms_;                    // particle of each atom that the model sees
  std::vector<std::int64_t> node_types_;      // [n_atoms] type index in the first contract
  std::vector<double> positions_;             // [n_atoms, 3] Å
  bool can_skip_forces_ = false;              // this platform tells in time whether forces are wanted
  bool include_forces_ = true;
  std::unique_ptr<PlatformArrays> arrays_;  // null where CustomCPPForceImpl does the work
  mlip::InPlaceStep* in_place_ = nullptr;   // of structure_, where OpenMM and the model share a GPU
  mlip::StepResult in_place_result_;
  bool close_pair_reported_ = false;
};

}  // namespace mlip_openmm
