// What a Context holds for an MLIPForce: the loaded model, its neighbour list and buffers. One implementation
// serves every OpenMM platform (CustomCPPForceImpl hands positions and forces over in float64).
#pragma once

#include <openmm/internal/ContextImpl.h>
#include <openmm/internal/CustomCPPForceImpl.h>

#include <memory>
#include <vector>

#include "core/graph.h"
#include "core/model.h"
#include "core/neighbours.h"
#include "mlip_force.h"

namespace mlip_openmm {

class MLIPForceImpl : public OpenMM::CustomCPPForceImpl {
 public:
  explicit MLIPForceImpl(const MLIPForce& owner);
  const OpenMM::Force& getOwner() const override { return owner_; }
  void initialize(OpenMM::ContextImpl& context) override;

  /// @param positions nm; @param forces kJ/mol/nm; @return kJ/mol
  double computeForce(OpenMM::ContextImpl& context, const std::vector<OpenMM::Vec3>& positions,
                      std::vector<OpenMM::Vec3>& forces) override;

 private:
  const MLIPForce& owner_;
  std::unique_ptr<mlip::Model> model_;
  mlip::NeighbourList neighbours_;
  mlip::Graph graph_;
  mlip::Evaluation evaluation_;
  std::vector<double> positions_;  // [n, 3] Å
  std::vector<double> forces_;     // [n, 3] kJ/mol/nm
};

}  // namespace mlip_openmm
