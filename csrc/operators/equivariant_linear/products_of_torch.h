// The passes of `mlip::equivariant_linear` on other devices than the CPU: a product of torch's for each of the plan's,
// which writes its result where it belongs or adds it there. Nothing is recorded for autograd.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "operators/equivariant_linear/equivariant_linear_plan.h"

namespace mlip {

/// Arguments as the operator has them.
/// @param outputs overwritten; blocks, or one tensor of rows
void forward_of_torch(const EquivariantLinearPlan& plan, const std::vector<at::Tensor>& inputs, const at::Tensor& types,
                      const at::Tensor& matrices, const at::Tensor& element_matrices, const at::Tensor& bias,
                      bool as_rows, const std::vector<at::Tensor>& outputs);

/// @param gradients of the outputs
/// @param sums [number of inputs]: their gradients; undefined for those that nobody wants
/// @param written [number of inputs]: whether a sum holds something that products are added to, or is overwritten
void backward_of_torch(const EquivariantLinearPlan& plan, const std::vector<at::Tensor>& gradients,
                       const at::Tensor& types, const at::Tensor& matrices, const at::Tensor& element_matrices,
                       bool as_rows, const std::vector<at::Tensor>& sums, const std::vector<bool>& written);

}  // namespace mlip
