// What a Context holds for an MLIPForce: the loaded model, its neighbour list and buffers. One implementation
// serves every OpenMM platform (CustomCPPForceImpl hands positions and forces over in float64).
#pragma once

#include <openmm/internal/ContextImpl.h>
#include <openmm/internal/CustomCPPForceImpl.h>

#include <memory>
#include <string>
#include <vector>

#include "core/model.h"
#include "core/neighbours.h"
#include "core/step.h"
#include "mlip_force.h"

namespace mlip_openmm {

class MLIPForceImpl : public OpenMM::CustomCPPForceImpl {
 public:
  explicit MLIPForceImpl(const MLIPForce& owner);
  const OpenMM::Force& getOwner() const override { return owner_; }

  /// Checks the atoms and the artifact's SHA-256, then loads the model.
  /// @throws OpenMMException, the only kind that OpenMM's worker threads catch; so do all members.
  void initialize(OpenMM::ContextImpl& context) override;

  /// Notes whether forces are wanted, for computeForce().
  double calcForcesAndEnergy(OpenMM::ContextImpl& context, bool include_forces, bool include_energy,
                             int groups) override;

  /// @param positions nm; @param forces kJ/mol/nm, zero for particles outside the atom subset; @return kJ/mol
  double computeForce(OpenMM::ContextImpl& context, const std::vector<OpenMM::Vec3>& positions,
                      std::vector<OpenMM::Vec3>& forces) override;

 private:
  void check_atoms(int n_particles);
  void load_model();
  void gather_positions(const std::vector<OpenMM::Vec3>& positions);

  const MLIPForce& owner_;
  std::unique_ptr<mlip::Model> model_;
  std::unique_ptr<mlip::StepEvaluator> step_;
  mlip::NeighbourList neighbours_;
  std::vector<int> atoms_;                // particle of each atom that the model sees
  std::vector<std::int64_t> node_types_;  // [n_atoms] type index in the contract
  std::vector<double> positions_;         // [n_atoms, 3] Å
  bool can_skip_forces_ = false;          // this platform tells in time whether forces are wanted
  bool include_forces_ = true;
};

}  // namespace mlip_openmm
