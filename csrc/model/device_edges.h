// The edges of a step on the model's device, and the sums over their gradients.
//
// Two ways with one meaning: kernels of their own where the device has any (device_edges_gpu.cpp), and torch's
// operators elsewhere (device_edges.cpp), which are tested on the CPU too.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "core/graph.h"
#include "model/step.h"

namespace mlip {

/// On the device, in the order of the candidates.
struct EdgesOfStep {
  at::Tensor index;    ///< int64 [2, n_edges] node of centre and neighbour
  at::Tensor vectors;  ///< float64 [n_edges, 3] r_ij, Å
};

/// float64, on the device; signs and components as in graph.h. Undefined where they were not asked for.
struct SumsOverEdges {
  at::Tensor forces;            ///< [n_nodes, 3] eV/Å
  at::Tensor virial;            ///< [3, 3] eV
  at::Tensor atom_virials;      ///< [n_nodes, 6] eV
  at::Tensor centroid_virials;  ///< [n_nodes, 9] eV, of a local model
};

class DeviceEdges {
 public:
  virtual ~DeviceEdges() = default;
  virtual void set_candidates(const CandidateEdges& candidates, std::int64_t n_nodes) = 0;
  /// Where these alone have changed since.
  virtual void set_shifts(const CandidateEdges& candidates) = 0;
  /// The candidates inside the cutoff. The host waits for their number.
  /// @param positions         float64 [engine atoms, 3] on the device, contiguous
  /// @param length_in_angstrom Å per unit of the positions
  virtual EdgesOfStep find(const at::Tensor& positions, double length_in_angstrom, double cutoff) = 0;
  /// @param edges      of the last `find`
  /// @param gradients  [n_edges, 3] g_ij, eV/Å, of a floating-point type
  virtual SumsOverEdges sums(const EdgesOfStep& edges, const at::Tensor& gradients, const StepRequest& wanted) = 0;
  /// Of what is kept for the candidates.
  virtual double bytes() const = 0;
};

/// By kernels where `device` has them (gpu::has_kernels), by torch's operators elsewhere.
std::unique_ptr<DeviceEdges> make_device_edges(at::Device device);

/// By kernels. @throws Error with the compiler's words.
std::unique_ptr<DeviceEdges> make_kernel_edges(at::Device device);

/// The text that these kernels are compiled from, for gradients of this type.
std::string kernel_edges_source(at::ScalarType type);

/// A copy on the device: it does not depend on the caller's memory where the device is the CPU.
/// @param values int, std::int64_t or double
template <typename Value>
at::Tensor upload(const Value* values, at::IntArrayRef sizes, at::Device device);
template <typename Value>
at::Tensor upload(const std::vector<Value>& values, at::Device device) {
  return upload(values.data(), {static_cast<std::int64_t>(values.size())}, device);
}

/// The candidates' shifts, float64 [n_images, 3] Å; undefined without images.
at::Tensor upload_shifts(const CandidateEdges& candidates, at::Device device);

}  // namespace mlip
