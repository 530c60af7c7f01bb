#include "mlip_force_impl.h"

#include <openmm/OpenMMException.h>
#include <openmm/Platform.h>
#include <openmm/System.h>

#include <array>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <numeric>
#include <string>

#include "artifact_bytes.h"
#include "core/archive.h"
#include "core/error.h"
#include "core/sha256.h"
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
  } catch (...) {
    throw OpenMM::OpenMMException("MLIPForce: an error of unknown type");
  }
}

/// The artifact where it was, or under the same name in the working folder: on another machine, a System's XML and
/// its artifact travel side by side, and the SHA-256 proves that it is the same file.
std::string find_artifact(const std::string& path) {
  const std::string here = std::filesystem::path(path).filename().string();
  return !std::filesystem::exists(path) && std::filesystem::exists(here) ? here : path;
}

/// A warning for a file whose validation record says that it failed, or does not hold for the file as it is, this
/// OpenMM and torch.
/// @param name of the artifact for the user, whose file may be a temporary one
void warn_if_in_doubt(const mlip::SealedArchive& archive, const std::string& name) {
  std::string problem;
  try {
    const auto found = mlip::read_validation(archive, "openmm", OpenMM::Platform::getOpenMMVersion());
    if (found.in_doubt()) problem = found.problem;
  } catch (const mlip::Error& failure) {
    problem = failure.what();
  }
  if (!problem.empty())
    std::cerr << "MLIPForce: warning: '" << name << "': " << problem << ". Type: mlip validate " << name
              << " --record -o validation" << std::endl;
}

std::atomic<double> total_seconds_in_models{0.0};

}  // namespace

double MLIPForce::seconds_in_models() { return total_seconds_in_models; }

MLIPForceImpl::MLIPForceImpl(const MLIPForce& owner) : CustomCPPForceImpl(owner), owner_(owner) {}

void MLIPForceImpl::initialize(OpenMM::ContextImpl& context) {
  as_openmm_errors([&] {
    check_atoms(context.getSystem().getNumParticles());
    arrays_ = PlatformArrays::of(context, atoms_);
    load_models();
  });
  if (arrays_) {
    if (models_.front()->device() == arrays_->cuda_device() && structure_->committee().n_driving() == 1)
      in_place_ = structure_->committee().step(0).in_place(static_cast<std::int64_t>(atoms_.size()));
    return;
  }
  CustomCPPForceImpl::initialize(context);
  // The GPU platforms start computeForce() on a worker thread before calcForcesAndEnergy() is called.
  const std::string& platform = context.getPlatform().getName();
  can_skip_forces_ = platform == "Reference" || platform == "CPU";
}

std::map<std::string, double> MLIPForceImpl::getDefaultParameters() {
  const auto& settings = owner_.definition().settings;
  return {settings.begin(), settings.end()};
}

void MLIPForceImpl::apply_settings(OpenMM::ContextImpl& context) {
  for (const auto& model : models_) {
    const auto& declared = model->contract().settings;
    if (declared.empty()) continue;
    mlip::SettingValues values(declared);
    for (const auto& setting : declared) values.set(setting.name, context.getParameter(setting.name));
    model->set_settings(values.values());
  }
}

void MLIPForceImpl::check_atoms(int n_particles) {
  const MLIPForceDefinition& force = owner_.definition();
  if (force.n_particles != n_particles)
    throw mlip::Error("the force was made for " + std::to_string(force.n_particles) + " particles, the System has " +
                      std::to_string(n_particles) + ". Make the force from the System's own topology");
  atoms_ = force.atoms;
  if (atoms_.empty()) {
    atoms_.resize(force.elements.size());
    std::iota(atoms_.begin(), atoms_.end(), 0);
  }
  if (atoms_.size() != force.elements.size())
    throw mlip::Error("the force names " + std::to_string(atoms_.size()) + " atoms and " +
                      std::to_string(force.elements.size()) + " elements. Write the XML anew");
  std::vector<bool> taken(static_cast<std::size_t>(n_particles), false);
  for (const int atom : atoms_) {
    if (atom < 0 || atom >= n_particles)
      throw mlip::Error("atom " + std::to_string(atom) + " is not one of the System's " + std::to_string(n_particles) +
                        " particles (counted from 0)");
    if (taken[static_cast<std::size_t>(atom)])
      throw mlip::Error("atom " + std::to_string(atom) + " is named twice. Name each atom once");
    taken[static_cast<std::size_t>(atom)] = true;
  }
}

std::string MLIPForceImpl::device() const {
  const std::string& wanted = owner_.definition().device;
  const std::string gpu = arrays_ ? arrays_->cuda_device() : "";
  return !gpu.empty() && (wanted == "cuda" || wanted == "auto") ? gpu : wanted;
}

void MLIPForceImpl::load_models() {
  const MLIPForceDefinition& force = owner_.definition();
  const mlip::ModelOptions options{
      .device = device(), .threads = force.threads, .self_test = force.self_test, .products = force.products};
  std::vector<mlip::Model*> members;
  for (const ArtifactFile& file : force.files) {
    load(file, options);
    members.push_back(models_.back().get());
  }
  structure_ = std::make_unique<mlip::StructureEvaluator>(members, force.drive);
  for (std::size_t k = 0; k < atoms_.size(); ++k) {
    for (std::size_t member = 0; member < models_.size(); ++member) {
      try {
        const int type = models_[member]->contract().type_index(force.elements[k]);
        if (member == 0) node_types_.push_back(type);
      } catch (const mlip::Error& failure) {
        throw mlip::Error("atom " + std::to_string(atoms_[k]) + " (counted from 0) is " + failure.what() +
                          ", see: mlip info " + force.files[member].path);
      }
    }
  }
}

void MLIPForceImpl::load(const ArtifactFile& artifact, const mlip::ModelOptions& options) {
  const bool announced = owner_.definition().announced;
  if (artifact.embedded) {
    const TemporaryFile file(*artifact.embedded);
    const mlip::SealedArchive archive(file.path());
    models_.push_back(std::make_unique<mlip::Model>(archive, options));
    if (!announced) warn_if_in_doubt(archive, artifact.path);
  } else {
    const std::string path = find_artifact(artifact.path);
    const mlip::SealedArchive archive(path);
    mlip::read_contract(archive);  // first: its errors say why a file is no artifact
    const std::string found = mlip::sha256(read_bytes(path));
    if (found != artifact.sha256)
      throw mlip::Error("'" + path + "' is not the file that the force was made from: its SHA-256 is " + found +
                        ", expected " + artifact.sha256 +
                        ". Put the old file back, or make the force anew from this one: MLIPForce(path, topology)");
    models_.push_back(std::make_unique<mlip::Model>(archive, options));
    if (!announced) warn_if_in_doubt(archive, path);
  }
}

double MLIPForceImpl::calcForcesAndEnergy(OpenMM::ContextImpl& context, bool include_forces, bool include_energy,
                                          int groups) {
  if (!arrays_) {
    include_forces_ = include_forces || !can_skip_forces_;
    return CustomCPPForceImpl::calcForcesAndEnergy(context, include_forces, include_energy, groups);
  }
  if ((groups & (1 << owner_.getForceGroup())) == 0) return 0.0;
  return as_openmm_errors([&] {
    if (in_place_ != nullptr) {
      arrays_->write_positions(in_place_->positions());
      const double energy = evaluate_in_place(context, wanted(include_forces));
      if (include_forces) arrays_->add_forces(in_place_->forces());
      return energy;
    }
    arrays_->write_positions(positions_);
    const double energy = evaluate(context, wanted(include_forces));
    if (include_forces) arrays_->add_forces(result_->forces);
    return energy;
  });
}

double MLIPForceImpl::computeForce(OpenMM::ContextImpl& context, const std::vector<Vec3>& positions,
                                   std::vector<Vec3>& forces) {
  return as_openmm_errors([&] {
    constexpr auto units = mlip::units::openmm_units;
    set_positions(positions);
    const double energy = evaluate(context, wanted(include_forces_));
    if (atoms_.size() != forces.size()) std::fill(forces.begin(), forces.end(), Vec3());
    if (include_forces_) {
      constexpr double scale = units.length_in_angstrom / units.energy_in_ev;
      const std::vector<double>& found = result_->forces;
      for (std::size_t k = 0; k < atoms_.size(); ++k)
        forces[static_cast<std::size_t>(atoms_[k])] = Vec3(found[3 * k], found[3 * k + 1], found[3 * k + 2]) * scale;
    }
    return energy;
  });
}

mlip::Deviation MLIPForceImpl::deviation(OpenMM::ContextImpl& context) {
  return as_openmm_errors([&] {
    if (models_.size() == 1)
      throw mlip::Error("one model does not deviate. Make a committee: MLIPForce([a, b, c], topology)");
    std::vector<Vec3> positions;
    context.getPositions(positions);
    set_positions(positions);
    apply_settings(context);
    update_candidates(cell(context));
    mlip::Committee& committee = structure_->committee();
    const double before = committee.seconds_in_backend();
    committee.evaluate(positions_.data(), 1.0, {}, true);
    total_seconds_in_models += committee.seconds_in_backend() - before;
    return committee.deviation();
  });
}

std::string MLIPForceImpl::why_not(const std::string& quantity) const {
  const mlip::Model& model = *models_.front();
  return quantity == "grade" ? model.no_grades() : model.no_uncertainties();
}

std::vector<double> MLIPForceImpl::grades(OpenMM::ContextImpl& context) {
  return as_openmm_errors([&] {
    mlip::StepRequest request = wanted(false);
    request.grades = true;
    return evaluate_now(context, request).grades;
  });
}

Uncertainty MLIPForceImpl::uncertainty(OpenMM::ContextImpl& context) {
  return as_openmm_errors([&] {
    mlip::StepRequest request = wanted(false);
    request.uncertainties = true;
    const mlip::StepResult& found = evaluate_now(context, request);
    return Uncertainty{found.energy_uncertainty, found.uncertainties};
  });
}

const mlip::StepResult& MLIPForceImpl::evaluate_now(OpenMM::ContextImpl& context, const mlip::StepRequest& wanted) {
  if (in_place_ != nullptr) {
    arrays_->write_positions(in_place_->positions());
    evaluate_in_place(context, wanted);
  } else {
    std::vector<Vec3> positions;
    context.getPositions(positions);
    set_positions(positions);
    evaluate(context, wanted);
  }
  return *result_;
}

void MLIPForceImpl::set_positions(const std::vector<Vec3>& positions) {
  positions_.resize(3 * atoms_.size());
  for (std::size_t k = 0; k < atoms_.size(); ++k)
    for (int axis = 0; axis < 3; ++axis)
      positions_[3 * k + static_cast<std::size_t>(axis)] =
          mlip::units::openmm_units.length_in_angstrom * positions[static_cast<std::size_t>(atoms_[k])][axis];
}

void MLIPForceImpl::check_positions() const {
  for (std::size_t k = 0; k < positions_.size(); ++k)
    if (!std::isfinite(positions_[k]))
      // OpenMM's own words, which scripts look for, and the atom.
      throw OpenMM::OpenMMException(
          "Particle coordinate is NaN.  For more information, see "
          "https://github.com/openmm/openmm/wiki/Frequently-Asked-Questions#nan (MLIPForce: atom " +
          std::to_string(atoms_[k / 3]) + ", counted from 0)");
}

std::array<double, 9> MLIPForceImpl::cell(OpenMM::ContextImpl& context) const {
  std::array<double, 9> rows{};
  if (!owner_.usesPeriodicBoundaryConditions()) return rows;
  Vec3 box[3];
  context.getPeriodicBoxVectors(box[0], box[1], box[2]);
  for (int row = 0; row < 3; ++row)
    for (int axis = 0; axis < 3; ++axis)
      rows[3 * row + axis] = mlip::units::openmm_units.length_in_angstrom * box[row][axis];
  return rows;
}

std::array<bool, 3> MLIPForceImpl::periodic() const {
  const bool periodic = owner_.usesPeriodicBoundaryConditions();
  return {periodic, periodic, periodic};
}

void MLIPForceImpl::update_candidates(const std::array<double, 9>& cell) {
  check_positions();
  structure_->prepare(positions_.data(), node_types_, cell, periodic());
}

double MLIPForceImpl::evaluate(OpenMM::ContextImpl& context, const mlip::StepRequest& wanted) {
  apply_settings(context);
  update_candidates(cell(context));
  return energy_of([&]() -> const mlip::StepResult& {
    structure_->committee().evaluate(positions_.data(), 1.0, wanted, false);
    return structure_->committee().result();
  });
}

double MLIPForceImpl::evaluate_in_place(OpenMM::ContextImpl& context, const mlip::StepRequest& wanted) {
  apply_settings(context);
  const std::array<double, 9> now = cell(context);
  const auto farthest_move = [&](const std::array<double, 9>& deformation) {
    return in_place_->farthest_move(deformation);
  };
  if (!structure_->follow(node_types_, now, periodic(), farthest_move)) {
    arrays_->write_positions(positions_);
    update_candidates(now);
  }
  return energy_of([&]() -> const mlip::StepResult& {
    in_place_->evaluate_in_place(wanted, in_place_result_);
    return in_place_result_;
  });
}

mlip::StepRequest MLIPForceImpl::wanted(bool include_forces) const {
  return {.forces = include_forces, .close_pair = !close_pair_reported_};
}

void MLIPForceImpl::report(const mlip::ClosePair& pair) {
  if (!pair.found()) return;
  close_pair_reported_ = true;
  const auto name = [&](std::int64_t node) {
    const auto k = static_cast<std::size_t>(node);
    return std::to_string(atoms_[k]) + " (" + owner_.definition().elements[k] + ")";
  };
  std::cerr << "MLIPForce: warning: " << mlip::describe(pair, name(pair.centre), name(pair.neighbour))
            << " (atoms are counted from 0)" << std::endl;
}

double MLIPForceImpl::energy_of(const std::function<const mlip::StepResult&()>& step) {
  const double before = structure_->committee().seconds_in_backend();
  result_ = &step();
  report(result_->close_pair);
  total_seconds_in_models += structure_->committee().seconds_in_backend() - before;
  double energy = 0.0;  // in float64: Monte Carlo moves live from small differences of large sums
  for (const double value : result_->atomic_energies) energy += value;
  return energy / mlip::units::openmm_units.energy_in_ev;
}

}  // namespace mlip_openmm
