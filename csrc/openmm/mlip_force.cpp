#include "mlip_force.h"

#include <utility>

#include "mlip_force_impl.h"

namespace mlip_openmm {

MLIPForce::MLIPForce(MLIPForceDefinition definition) : definition_(std::move(definition)) {}

mlip::Deviation MLIPForce::deviation(OpenMM::Context& context) const {
  return dynamic_cast<MLIPForceImpl&>(getImplInContext(context)).deviation(getContextImpl(context));
}

std::vector<double> MLIPForce::grades(OpenMM::Context& context) const {
  return dynamic_cast<MLIPForceImpl&>(getImplInContext(context)).grades(getContextImpl(context));
}

Uncertainty MLIPForce::uncertainty(OpenMM::Context& context) const {
  return dynamic_cast<MLIPForceImpl&>(getImplInContext(context)).uncertainty(getContextImpl(context));
}

std::string MLIPForce::why_not(OpenMM::Context& context, const std::string& quantity) const {
  return dynamic_cast<MLIPForceImpl&>(getImplInContext(context)).why_not(quantity);
}

OpenMM::ForceImpl* MLIPForce::createImpl() const { return new MLIPForceImpl(*this); }

}  // namespace mlip_openmm
