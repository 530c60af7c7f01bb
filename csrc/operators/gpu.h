// The fused operators on GPUs: what is registered for CUDA tensors. Arguments as in the operators' own files
// (edge_harmonics.cpp, edge_tensor_product.cpp, gate.cpp, symmetric_contraction.cpp).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "gpu/runtime.h"
#include "gpu/texts.h"

namespace mlip {

/// Whether an operator with kernels for CPUs and for GPUs has them on this device. Elsewhere it is torch's operators.
inline bool has_own_kernels(at::Device device) { return device.is_cpu() || gpu::has_kernels(device); }

}  // namespace mlip

namespace mlip::gpu {

std::vector<at::Tensor> edge_tensor_product(const at::Tensor& features, const at::Tensor& harmonics,
                                            const at::Tensor& radial, const at::Tensor& edge_index,
                                            std::int64_t n_owned, at::IntArrayRef paths, const at::Tensor& coefficients,
                                            const at::Tensor& table, double step,
                                            const std::optional<at::Tensor>& table_of_edge, std::int64_t kink);

/// -> gradients of features (empty when not wanted), harmonics, radial
std::tuple<at::Tensor, at::Tensor, at::Tensor> edge_tensor_product_backward(
    at::TensorList gradients, const at::Tensor& features, const at::Tensor& harmonics, const at::Tensor& radial,
    const at::Tensor& edge_index, at::IntArrayRef paths, const at::Tensor& coefficients, const at::Tensor& table,
    double step, bool features_wanted, const std::optional<at::Tensor>& table_of_edge, std::int64_t kink);

std::tuple<at::Tensor, at::Tensor> edge_harmonics(const at::Tensor& vectors, std::int64_t l_max);

/// -> gradient of the vectors
at::Tensor edge_harmonics_backward(const at::Tensor& distances_gradient, const at::Tensor& harmonics_gradient,
                                   const at::Tensor& vectors, std::int64_t l_max);

std::vector<at::Tensor> gate(at::TensorList inputs, at::IntArrayRef pieces, at::ArrayRef<double> factors);

/// -> gradients of the inputs
std::vector<at::Tensor> gate_backward(at::TensorList gradients, at::TensorList inputs, at::IntArrayRef pieces,
                                      at::ArrayRef<double> factors);

at::Tensor symmetric_contraction(const at::Tensor& features, const at::Tensor& types, const at::Tensor& factors,
                                 const at::Tensor& terms, std::int64_t n_outputs, const at::Tensor& coefficients);

/// -> gradient of the features
at::Tensor symmetric_contraction_backward(const at::Tensor& gradient, const at::Tensor& features,
                                          const at::Tensor& types, const at::Tensor& factors, const at::Tensor& terms,
                                          const at::Tensor& coefficients);

}  // namespace mlip::gpu
