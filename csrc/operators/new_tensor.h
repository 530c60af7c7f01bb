// Tensors for the results of operators.
#pragma once

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>

namespace mlip {

/// Memory of the type and on the device of `like`, which nothing has been written to. On the CPU it comes without
/// torch's dispatcher: a step of few atoms makes a hundred small tensors, and the dispatcher takes longer than the
/// memory.
inline at::Tensor new_tensor(at::IntArrayRef sizes, const at::Tensor& like) {
  if (!like.is_cpu()) return at::empty(sizes, like.options());
  return at::Tensor(at::detail::empty_cpu(sizes, like.scalar_type()));
}

}  // namespace mlip
