// Sizes of tensors as a trace of a model sees them, in which the numbers of atoms and edges are symbols.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace mlip {

/// One that the model fixes, such as a number of channels. `Tensor::size` asks for all sizes of a tensor as numbers:
/// a trace then fixes the counts too. Counts themselves are `Tensor::sym_size`.
inline std::int64_t fixed_size(const at::Tensor& tensor, std::int64_t dimension) {
  return tensor.sym_size(dimension).expect_int();
}

}  // namespace mlip
