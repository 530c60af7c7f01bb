#include "mlip_force.h"

#include <utility>

#include "mlip_force_impl.h"

namespace mlip_openmm {

MLIPForce::MLIPForce(std::string path, std::vector<std::string> elements, bool periodic, int threads,
                     std::string device)
    : path_(std::move(path)),
      elements_(std::move(elements)),
      periodic_(periodic),
      threads_(threads),
      device_(std::move(device)) {}

OpenMM::ForceImpl* MLIPForce::createImpl() const { return new MLIPForceImpl(*this); }

}  // namespace mlip_openmm
