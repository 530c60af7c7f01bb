// MLIPForce: an OpenMM Force whose energy is that of an mlip-deploy artifact.
#pragma once

#include <openmm/Force.h>

#include <string>
#include <vector>

namespace mlip_openmm {

class MLIPForce : public OpenMM::Force {
 public:
  /// @param path      artifact, *.mlip.pt
  /// @param elements  chemical symbol of every particle of the System, in order
  /// @param periodic  use the Context's periodic box vectors (any triclinic box, of any size)
  /// @param threads   CPU threads inside the model; 0 leaves the process's setting
  /// @param device    cpu, cuda, cuda:N or auto
  MLIPForce(std::string path, std::vector<std::string> elements, bool periodic, int threads, std::string device);

  const std::string& path() const { return path_; }
  const std::vector<std::string>& elements() const { return elements_; }
  int threads() const { return threads_; }
  const std::string& device() const { return device_; }
  bool usesPeriodicBoundaryConditions() const override { return periodic_; }

 protected:
  OpenMM::ForceImpl* createImpl() const override;

 private:
  std::string path_;
  std::vector<std::string> elements_;
  bool periodic_;
  int threads_;
  std::string device_;
};

}  // namespace mlip_openmm
