// A model's TorchScript graph as a list of steps with a pass back of their own, so that neither TorchScript's
// interpreter nor autograd runs between one kernel and the next: for small systems they cost more than the kernels.
//
// The operators that have a native form (core/native_operator.h) are called directly. What lies between them stays
// a graph for TorchScript, and autograd differentiates that alone.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/core/Device.h>
#include <torch/csrc/jit/api/method.h>

#include <memory>
#include <vector>

#include "model/backend.h"

namespace mlip {

class Program {
 public:
  /// @param forward of a model that sees positions through its edges alone
  /// @param device of the model
  /// @return null where no operator of the graph has a native form, or where the graph is more than a list of steps
  ///         whose results are tensors: TorchScript then runs all of it
  static std::unique_ptr<Program> of(const torch::jit::Method& forward, at::Device device);
  virtual ~Program() = default;

  /// @param inputs node types, number of owned nodes, edge index and edge vectors, as `forward` takes them
  /// @param settings undefined for a model without
  /// @return energies, edge gradients unless only energies are wanted, and features of a model that gives them
  virtual ModelOutputs run(std::vector<c10::IValue> inputs, const at::Tensor& settings, bool only_energies) const = 0;
};

}  // namespace mlip
