// What the implementations of `mlip::edge_tensor_product` (reference, CPU, GPU) read its arguments with; they are
// described in edge_tensor_product.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "operators/radial_table.h"
#include "operators/tracing.h"

namespace mlip {

/// The constants of a convolution, unpacked.
struct EdgeTensorProductPlan {
  struct Path {
    std::int64_t l1, l2, l3, channels, features, harmonics, weights, output, output_offset;
    std::int64_t coefficients;  ///< first value in the flat tensor
    std::int64_t n1() const { return 2 * l1 + 1; }
    std::int64_t n2() const { return 2 * l2 + 1; }
    std::int64_t n3() const { return 2 * l3 + 1; }
  };
  std::vector<Path> paths;
  std::vector<std::int64_t> output_components;  ///< 2l+1 of each output
  std::vector<std::int64_t> output_channels;
  std::int64_t n_weights = 0;

  EdgeTensorProductPlan(at::IntArrayRef packed, const at::Tensor& features, const at::Tensor& harmonics,
                        const at::Tensor& coefficients) {
    TORCH_CHECK(packed.size() % 9 == 0, "edge_tensor_product: paths must be nine numbers each, found ", packed.size());
    std::int64_t n_coefficients = 0;
    const std::int64_t* row = packed.data();
    for (std::size_t p = 0; p < packed.size() / 9; ++p, row += 9) {
      Path path{row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], n_coefficients};
      TORCH_CHECK(*std::min_element(row, row + 9) >= 0 &&
                      path.features + path.n1() * path.channels <= fixed_size(features, 1) &&
                      path.harmonics + path.n2() <= fixed_size(harmonics, 1) &&
                      path.output <= static_cast<std::int64_t>(output_channels.size()),
                  "edge_tensor_product: path ", p, " does not fit the features or harmonics");
      n_coefficients += path.n1() * path.n2() * path.n3();
      n_weights = std::max(n_weights, path.weights + path.channels);
      if (path.output == static_cast<std::int64_t>(output_channels.size())) {
        output_channels.push_back(0);
        output_components.push_back(path.n3());
      }
      TORCH_CHECK(output_components[path.output] == path.n3(), "edge_tensor_product: path ", p,
                  " has another l than the output that it adds to");
      output_channels[path.output] = std::max(output_channels[path.output], path.output_offset + path.channels);
      paths.push_back(path);
    }
    TORCH_CHECK(coefficients.numel() == n_coefficients, "edge_tensor_product: ", coefficients.numel(),
                " coefficients, expected ", n_coefficients);
  }

  /// @throws c10::Error when shapes or types do not fit each other.
  void check(const at::Tensor& features, const at::Tensor& harmonics, const at::Tensor& radial,
             const at::Tensor& edge_index, const at::Tensor& coefficients, const at::Tensor& table, std::int64_t kink,
             const std::optional<at::Tensor>& table_of_edge) const {
    const c10::SymInt n_edges = edge_index.sym_size(1);
    for (const at::Tensor* tensor : {&features, &harmonics, &radial, &coefficients, &table})
      TORCH_CHECK(tensor->scalar_type() == features.scalar_type() && tensor->is_floating_point(),
                  "edge_tensor_product: all floating-point inputs must have one type");
    TORCH_CHECK(harmonics.sym_size(0) == n_edges && radial.sym_size(0) == n_edges,
                "edge_tensor_product: harmonics and radial need one row for each of ", n_edges, " edges");
    if (table.numel() > 0) {
      TORCH_CHECK(radial.dim() == 1, "edge_tensor_product: with a table, radial is [n_edges], found ", radial.sizes());
      check_table("edge_tensor_product", table, table_of_edge.has_value(), n_weights, kink);
    } else {
      TORCH_CHECK(radial.dim() == 2 && fixed_size(radial, 1) == n_weights,
                  "edge_tensor_product: without a table, radial is [n_edges, ", n_weights, "]");
    }
    if (table_of_edge)
      TORCH_CHECK(table.numel() > 0 && table_of_edge->sym_sizes() == radial.sym_sizes() &&
                      table_of_edge->scalar_type() == at::kLong,
                  "edge_tensor_product: with a table of each edge, int64 [n_edges], table is [n_tables, n_rows, ",
                  n_weights, "]");
  }

  /// Of the gradients of the outputs. @throws c10::Error likewise.
  void check_gradients(at::TensorList gradients, std::int64_t n_owned, at::ScalarType type) const {
    TORCH_CHECK(gradients.size() == output_channels.size(), "edge_tensor_product_backward: ", gradients.size(),
                " gradients for ", output_channels.size(), " outputs");
    for (std::size_t k = 0; k < gradients.size(); ++k)
      TORCH_CHECK(gradients[k].numel() == n_owned * output_components[k] * output_channels[k] &&
                      gradients[k].scalar_type() == type,
                  "edge_tensor_product_backward: gradient ", k, " has the wrong shape or type");
  }
};

}  // namespace mlip
