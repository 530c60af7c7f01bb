#include "mlip_force_impl.h"

#include <openmm/OpenMMException.h>
#include <openmm/System.h>

#include <array>
#include <string>

#include "core/error.h"
#include "core/units.h"

using OpenMM::Vec3;

namespace mlip_openmm {
namespace {

/// OpenMM's worker threads catch only OpenMMException: anything else would end the process.
template <typename Body>
auto as_openmm_errors(Body&& body) {
  try {
    return body();
  } catch (const OpenMM::OpenMMException&) {
    throw;
  } catch (const std::exception& failure) {
    throw OpenMM::OpenMMException(std::string("MLIPForce: ") + failure.what());
  }
}

}  // namespace

MLIPForceImpl::MLIPForceImpl(const MLIPForce& owner) : CustomCPPForceImpl(owner), owner_(owner) {}

void MLIPForceImpl::initialize(OpenMM::ContextImpl& context) {
  CustomCPPForceImpl::initialize(context);
  as_openmm_errors([&] {
    const auto& elements = owner_.elements();
    const auto n_particles = static_cast<std::size_t>(context.getSystem().getNumParticles());
    if (elements.size() != n_particles)
      throw mlip::Error("the force names the elements of " + std::to_string(elements.size()) +
                        " atoms, the System has " + std::to_string(n_particles) +
                        " particles. Make the force from the System's own topology");
    model_ = std::make_unique<mlip::Model>(owner_.path(), mlip::ModelOptions{owner_.device(), owner_.threads()});
    graph_.n_owned = static_cast<std::int64_t>(n_particles);
    graph_.node_types.clear();
    for (std::size_t k = 0; k < elements.size(); ++k) {
      try {
        graph_.node_types.push_back(model_->contract().type_index(elements[k]));
      } catch (const mlip::Error& failure) {
        throw mlip::Error("atom " + std::to_string(k) + " (counted from 0) is " + failure.what() + ", see: mlip info " +
                          owner_.path());
      }
    }
  });
}

double MLIPForceImpl::computeForce(OpenMM::ContextImpl& context, const std::vector<Vec3>& positions,
                                   std::vector<Vec3>& forces) {
  return as_openmm_errors([&] {
    constexpr auto units = mlip::units::openmm_units;
    const std::size_t n = positions.size();
    positions_.resize(3 * n);
    for (std::size_t k = 0; k < n; ++k)
      for (int axis = 0; axis < 3; ++axis) positions_[3 * k + axis] = units.length_in_angstrom * positions[k][axis];

    std::array<double, 9> cell{};
    const bool periodic = owner_.usesPeriodicBoundaryConditions();
    if (periodic) {
      Vec3 box[3];
      context.getPeriodicBoxVectors(box[0], box[1], box[2]);
      for (int row = 0; row < 3; ++row)
        for (int axis = 0; axis < 3; ++axis) cell[3 * row + axis] = units.length_in_angstrom * box[row][axis];
    }
    neighbours_.build(positions_.data(), static_cast<std::int64_t>(n), cell, {periodic, periodic, periodic},
                      model_->contract().cutoff, graph_);
    model_->evaluate(graph_, evaluation_);

    forces_.assign(3 * n, 0.0);
    mlip::add_forces(graph_, evaluation_.edge_gradients, units.length_in_angstrom / units.energy_in_ev, forces_.data());
    for (std::size_t k = 0; k < n; ++k) forces[k] = Vec3(forces_[3 * k], forces_[3 * k + 1], forces_[3 * k + 2]);
    double energy = 0.0;
    for (const double value : evaluation_.atomic_energies) energy += value;
    return energy / units.energy_in_ev;
  });
}

}  // namespace mlip_openmm
