// The fused operators on GPUs: what is registered for CUDA tensors. Arguments as in the operators' own files
// (edge_harmonics.cpp, edge_tensor_product.cpp, symmetric_contraction.cpp).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "gpu/texts.h"

namespace mlip::gpu {

std::vector<at::Tensor> edge_tensor_product(const at::Tensor& features, const at::Tensor& harmonics,
                                            const at::Tensor& radial, const at::Tensor& edge_index,
                                            std::int64_t n_owned, at::IntArrayRef paths, const at::Tensor& coefficients,
                                            const at::Tensor& table, double step,
                                            const std::optional<at::Tensor>& table_of_edge);

/// -> gradients of features (empty when not wanted), harmonics, radial
std::tuple<at::Tensor, at::Tensor, at::Tensor> edge_tensor_product_backward(
    at::TensorList gradients, const at::Tensor& features, const at::Tensor& harmonics, const at::Tensor& radial,
    const at::Tensor& edge_index, at::IntArrayRef paths, const at::Tensor& coefficients, const at::Tensor& table,
    double step, bool features_wanted, const std::optional<at::Tensor>& table_of_edge);

std::tuple<at::Tensor, at::Tensor> edge_harmonics(const at::Tensor& vectors, std::int64_t l_max);

/// -> gradient of the vectors
at::Tensor edge_harmonics_backward(const at::Tensor& distances_gradient, const at::Tensor& harmonics_gradient,
                                   const at::Tensor& vectors, std::int64_t l_max);

at::Tensor symmetric_contraction(const at::Tensor& features, const at::Tensor& types, const at::Tensor& factors,
                                 const at::Tensor& terms, std::int64_t n_outputs, const at::Tensor& coefficients);

/// -> gradient of the features
at::Tensor symmetric_contraction_backward(const at::Tensor& gradient, const at::Tensor& features,
                                          const at::Tensor& types, const at::Tensor& factors, const at::Tensor& terms,
                                          const at::Tensor& coefficients);

}  // namespace mlip::gpu
