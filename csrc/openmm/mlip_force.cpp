#include "mlip_force.h"

#include <utility>

#include "mlip_force_impl.h"

namespace mlip_openmm {

MLIPForce::MLIPForce(MLIPForceDefinition definition) : definition_(std::move(definition)) {}

std::vector<double> MLIPForce::grades(OpenMM::Context& context) {
  return dynamic_cast<MLIPForceImpl&>(getImplInContext(context)).grades(getContextImpl(context));
}

OpenMM::ForceImpl* MLIPForce::createImpl() const { return new MLIPForceImpl(*this); }

}  // namespace mlip_openmm
