// MLIPForce: an OpenMM Force whose energy is that of an mlip-deploy artifact, or of a committee of several.
#pragma once

#include <openmm/Context.h>
#include <openmm/Force.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/committee.h"

namespace mlip_openmm {

struct ArtifactFile {
  std::string path;    ///< artifact, *.mlip.pt
  std::string sha256;  ///< of the artifact's bytes, 64 hexadecimal digits; another file is refused
  /// The artifact's bytes when the force carries them itself; `path` is then only a name.
  std::shared_ptr<const std::string> embedded;
};

/// How uncertain energies are, calibrated with labels (model/domain.h), eV.
struct Uncertainty {
  double of_energy = 0.0;        ///< of all atoms together
  std::vector<double> of_atoms;  ///< [atoms that the model sees] of each one's energy alone
};

/// Everything that an MLIPForce is, apart from the force group and the name that every Force has.
struct MLIPForceDefinition {
  std::vector<ArtifactFile> files;         ///< at least one; several are a committee
  mlip::Drive drive = mlip::Drive::first;  ///< of a committee
  int n_particles = 0;                     ///< particles that the System must have
  std::vector<int> atoms;                  ///< particles that the model sees, each once; empty: all of them, in order
  std::vector<std::string> elements;       ///< chemical symbol of each atom that the model sees
  bool periodic = false;                   ///< use the Context's periodic box (any reduced triclinic box, of any size)
  int threads = 0;                         ///< CPU threads inside the model, for the process; 0 leaves them as they are
  std::string device = "cpu";              ///< cpu, cuda, cuda:N or auto
  /// Name and default of each of the models' settings, a choice by its index: the Context has parameters of these
  /// names.
  std::vector<std::pair<std::string, double>> settings;
  mlip::Products products = mlip::Products::full;  ///< of float32 matrices, on a GPU
  bool self_test = true;  ///< a Context refuses a model that does not compute here what its file says
  /// Whoever made the force has said whether the artifact was validated here. Not part of the XML: a System that is
  /// read from a file says it again.
  bool announced = false;
};

/// Nothing in it changes after construction, so there is no updateParametersInContext().
class MLIPForce : public OpenMM::Force {
 public:
  explicit MLIPForce(MLIPForceDefinition definition);

  const MLIPForceDefinition& definition() const { return definition_; }
  bool usesPeriodicBoundaryConditions() const override { return definition_.periodic; }

  /// How far apart the members of a committee are for a Context's positions, of the atoms that the model sees, in eV
  /// and Å. Costs a step of each member. @throws OpenMMException, for a Context without this force too.
  mlip::Deviation deviation(OpenMM::Context& context) const;

  /// Wall-clock seconds that this process has spent inside models on behalf of all MLIPForces: what is left of a
  /// step's time is the cost of the engine and of the way in and out.
  static double seconds_in_models();

  /// Grades of the model's atoms in a Context of this force's System, for its positions: one evaluation
  /// (model/domain.h).
  /// @throws OpenMMException where the artifact has no domain
  std::vector<double> grades(OpenMM::Context& context) const;
  /// Likewise. @throws OpenMMException where the artifact has none
  Uncertainty uncertainty(OpenMM::Context& context) const;
  /// @param quantity "grade" or "uncertainty" @return why a Context has none; "" where it has
  std::string why_not(OpenMM::Context& context, const std::string& quantity) const;

 protected:
  OpenMM::ForceImpl* createImpl() const override;

 private:
  MLIPForceDefinition definition_;
};

}  // namespace mlip_openmm
