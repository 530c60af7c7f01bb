// Positions and forces where OpenMM's CUDA and OpenCL platforms keep them: in the device's memory, in an order, a
// precision and periodic images of their own. Two kernels take positions from there and add forces to them there.
//
// Written against ComputeContext, OpenMM's own interface over both, of which only virtual and inline functions are
// called: neither CUDA's nor OpenCL's headers or libraries are needed to build or to load this.
#pragma once

#include <openmm/common/ComputeContext.h>
#include <openmm/internal/ContextImpl.h>

#include <memory>
#include <string>
#include <vector>

namespace mlip_openmm {

class PlatformArrays {
 public:
  /// @param atoms particle of each atom that the model sees
  /// @return null where there is no such memory (Reference, CPU), or where it is that of several devices, or of one
  ///         without float64
  static std::unique_ptr<PlatformArrays> of(OpenMM::ContextImpl& context, const std::vector<int>& atoms);

  /// "cuda:N" where pointers of others into the GPU's memory can be used, "" on OpenCL.
  const std::string& cuda_device() const { return cuda_device_; }

  /// Positions of the model's atoms, unwrapped, in the order of `atoms`. The device is done with them on return.
  /// @param address of float64 [n_atoms, 3], Å, in the memory of `cuda_device()`
  void write_positions(double* address);
  /// The same into memory of the host.
  void write_positions(std::vector<double>& positions);

  /// Add forces to those of OpenMM. Returns before the device has done so: they must stay until its next work is over.
  /// @param address of float64 [n_atoms, 3], eV/Å, in the memory of `cuda_device()`
  void add_forces(const double* address);
  /// The same from memory of the host, which may go at once.
  void add_forces(const std::vector<double>& forces);

 private:
  PlatformArrays(OpenMM::ComputeContext& context, const std::vector<int>& atoms, std::string cuda_device);
  OpenMM::ArrayInterface& new_array(std::size_t size, int element_size, const char* name);
  /// In which periodic image and cell OpenMM's positions are now.
  void send_images();
  void wait();

  OpenMM::ComputeContext& context_;
  std::string cuda_device_;
  std::size_t n_atoms_;
  std::vector<std::unique_ptr<OpenMM::ArrayInterface>> arrays_;
  OpenMM::ArrayInterface& model_atoms_;        // int32 [n_particles] the model's atom of each particle, or -1
  OpenMM::ArrayInterface& cell_offsets_;       // int32 [padded n_particles, 4]
  OpenMM::ArrayInterface& box_;                // float64 [9] nm
  OpenMM::ArrayInterface* staging_ = nullptr;  // float64 [n_atoms, 3], on the way from or to the host
  std::vector<OpenMM::mm_int4> sent_offsets_;
  std::vector<double> sent_box_;
  OpenMM::ComputeKernel read_;
  OpenMM::ComputeKernel add_;
  OpenMM::ComputeEvent done_;
};

}  // namespace mlip_openmm
