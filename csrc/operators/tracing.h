// What the references of the operators need to be traced, in graphs whose numbers of atoms and edges are symbols.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/utils/torch_dispatch_mode.h>

#include <cstdint>

namespace mlip {

/// One that the model fixes, such as a number of channels. `Tensor::size` asks for all sizes of a tensor as numbers:
/// a trace then fixes the counts too. Counts themselves are `Tensor::sym_size`.
inline std::int64_t fixed_size(const at::Tensor& tensor, std::int64_t dimension) {
  return tensor.sym_size(dimension).expect_int();
}

/// A constant of the graph: what is made within a trace has no memory to write numbers to.
inline at::Tensor constant(at::IntArrayRef values, const at::TensorOptions& options) {
  const torch::torch_dispatch_mode::StashTorchDispatchStackGuard no_trace;
  return at::tensor(values, options);
}

}  // namespace mlip
