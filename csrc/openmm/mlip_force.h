// MLIPForce: an OpenMM Force whose energy is that of an mlip-deploy artifact.
#pragma once

#include <openmm/Context.h>
#include <openmm/Force.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace mlip_openmm {

/// Everything that an MLIPForce is, apart from the force group and the name that every Force has.
struct MLIPForceDefinition {
  std::string path;    ///< artifact, *.mlip.pt
  std::string sha256;  ///< of the artifact's bytes, 64 hexadecimal digits; another file is refused
  /// The artifact's bytes when the force carries them itself; `path` is then only a name.
  std::shared_ptr<const std::string> embedded;
  int n_particles = 0;                ///< particles that the System must have
  std::vector<int> atoms;             ///< particles that the model sees, each once; empty: all of them, in order
  std::vector<std::string> elements;  ///< chemical symbol of each atom that the model sees
  bool periodic = false;              ///< use the Context's periodic box (any reduced triclinic box, of any size)
  int threads = 0;                    ///< CPU threads inside the model, for the process; 0 leaves them as they are
  std::string device = "cpu";         ///< cpu, cuda, cuda:N or auto
  /// Name and default of each of the model's settings, a choice by its index: the Context has parameters of these
  /// names.
  std::vector<std::pair<std::string, double>> settings;
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

  /// Wall-clock seconds that this process has spent inside models on behalf of all MLIPForces: what is left of a
  /// step's time is the cost of the engine and of the way in and out.
  static double seconds_in_models();

  /// Grades of the model's atoms in a Context of this force's System, for its positions: one evaluation (model/domain.h).
  /// @throws OpenMMException where the artifact has no domain
  std::vector<double> grades(OpenMM::Context& context);

 protected:
  OpenMM::ForceImpl* createImpl() const override;

 private:
  MLIPForceDefinition definition_;
};

}  // namespace mlip_openmm
