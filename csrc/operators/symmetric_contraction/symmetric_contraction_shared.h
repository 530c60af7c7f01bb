// What the implementations of `mlip::symmetric_contraction` (reference, CPU, GPU) check their arguments with; they are
// described in symmetric_contraction.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "operators/symmetric_contraction/symmetric_contraction_kernels.h"
#include "operators/tracing.h"

namespace mlip {

/// @throws c10::Error when shapes or types do not fit each other.
inline void check_contraction(const at::Tensor& features, const at::Tensor& types, const at::Tensor& factors,
                              const at::Tensor& terms, std::int64_t n_outputs, const at::Tensor& coefficients) {
  TORCH_CHECK(features.dim() == 3 && types.dim() == 1 && types.sym_size(0) == features.sym_size(0),
              "symmetric_contraction: features must be [n_atoms, n_components, channels] with a type for each atom");
  TORCH_CHECK(factors.dim() == 2 && factors.size(1) >= 1 && factors.size(1) <= highest_degree,
              "symmetric_contraction: monomials of degree ", factors.size(1), ", expected 1 to ", highest_degree);
  TORCH_CHECK(terms.dim() == 2 && terms.size(1) == 2 && n_outputs > 0,
              "symmetric_contraction: terms must be [n_terms, 2], for at least one output");
  const std::int64_t n_blocks = (fixed_size(features, 2) + channel_block - 1) / channel_block;
  TORCH_CHECK(coefficients.dim() == 4 && coefficients.size(1) == n_blocks && coefficients.size(2) == terms.size(0) &&
                  coefficients.size(3) == channel_block,
              "symmetric_contraction: coefficients are ", coefficients.sizes(), ", expected [n_elements, ", n_blocks,
              ", ", terms.size(0), ", ", channel_block, "]");
  TORCH_CHECK(features.is_floating_point() && coefficients.scalar_type() == features.scalar_type(),
              "symmetric_contraction: features and coefficients must have one floating-point type");
  for (const at::Tensor* index : {&types, &factors, &terms})
    TORCH_CHECK(index->scalar_type() == at::kLong, "symmetric_contraction: indices must be int64");
}

}  // namespace mlip
