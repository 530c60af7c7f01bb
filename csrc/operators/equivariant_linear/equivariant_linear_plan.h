// The integers of a call of `mlip::equivariant_linear`, which its implementations (reference, CPU, other devices)
// share.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "operators/tracing.h"

namespace mlip {

/// The integers of a call, unpacked and checked.
struct EquivariantLinearPlan {
  struct Block {
    std::int64_t components, channels;
    std::int64_t first;  ///< value in a row
    std::int64_t size() const { return components * channels; }
  };
  struct Product {
    std::int64_t input, block;
    bool of_element;
    std::int64_t channels_in;
    std::int64_t first;  ///< value of the matrix among those of its kind
  };
  std::vector<Block> blocks;
  std::vector<Product> products;
  std::int64_t n_inputs;   ///< at the least
  std::int64_t width = 0;  ///< values of all blocks

  EquivariantLinearPlan(at::IntArrayRef packed_blocks, at::IntArrayRef packed_products, std::int64_t n_inputs,
                        const at::Tensor& matrices, const at::Tensor& element_matrices, const at::Tensor& bias)
      : n_inputs(n_inputs) {
    TORCH_CHECK(packed_blocks.size() % 2 == 0 && packed_products.size() % 4 == 0,
                "equivariant_linear: blocks are two numbers each and products four, found ", packed_blocks.size(),
                " and ", packed_products.size());
    for (std::size_t k = 0; k < packed_blocks.size(); k += 2) {
      TORCH_CHECK(packed_blocks[k] > 0 && packed_blocks[k + 1] > 0, "equivariant_linear: a block is empty");
      blocks.push_back({packed_blocks[k], packed_blocks[k + 1], width});
      width += blocks.back().size();
    }
    std::int64_t n_values[] = {0, 0};
    for (std::size_t k = 0; k < packed_products.size(); k += 4) {
      const std::int64_t* row = packed_products.data() + k;
      TORCH_CHECK(row[0] >= 0 && row[0] < n_inputs && row[1] >= 0 &&
                      row[1] < static_cast<std::int64_t>(blocks.size()) && (row[2] == 0 || row[2] == 1) && row[3] > 0,
                  "equivariant_linear: product ", k / 4, " does not fit ", n_inputs, " inputs and ", blocks.size(),
                  " blocks");
      products.push_back({row[0], row[1], row[2] == 1, row[3], n_values[row[2]]});
      n_values[row[2]] += row[3] * blocks[row[1]].channels;
    }
    TORCH_CHECK(matrices.dim() == 2 && matrices.size(0) == 2 && matrices.size(1) == n_values[0],
                "equivariant_linear: expected matrices [2, ", n_values[0], "], found ", matrices.sizes());
    TORCH_CHECK(n_values[1] == 0 || (element_matrices.dim() == 3 && element_matrices.size(1) == 2 &&
                                     element_matrices.size(2) == n_values[1]),
                "equivariant_linear: expected matrices of elements [n_elements, 2, ", n_values[1], "], found ",
                element_matrices.sizes());
    TORCH_CHECK(bias.dim() == 2 && (bias.size(0) == 0 || bias.size(1) == width),
                "equivariant_linear: expected a bias [0, 0] or [1 or n_elements, ", width, "], found ", bias.sizes());
  }

  bool of_elements() const {
    return std::any_of(products.begin(), products.end(), [](const Product& product) { return product.of_element; });
  }

  /// Of the gradients of the outputs. @throws c10::Error when shapes or types do not fit.
  void check_gradients(at::TensorList gradients, bool as_rows, const at::Tensor& matrices) const {
    TORCH_CHECK(gradients.size() == (as_rows ? 1 : blocks.size()) && !gradients.empty(),
                "equivariant_linear_backward: ", gradients.size(), " gradients for ", blocks.size(), " blocks",
                as_rows ? " as rows" : "");
    for (std::size_t b = 0; b < gradients.size(); ++b)
      TORCH_CHECK(gradients[b].numel() == gradients[0].size(0) * (as_rows ? width : blocks[b].size()) &&
                      gradients[b].scalar_type() == matrices.scalar_type(),
                  "equivariant_linear_backward: gradient ", b, " has the wrong shape or type");
  }

  static void check_types(const at::Tensor& types) {
    TORCH_CHECK(types.dim() == 1 && types.scalar_type() == at::kLong,
                "equivariant_linear: expected types int64 [n_atoms] or [0], found ", types.scalar_type(), " ",
                types.sizes());
  }

  void check_inputs(at::TensorList inputs, const at::Tensor& types, const at::Tensor& matrices) const {
    check_types(types);
    TORCH_CHECK(!inputs.empty() && static_cast<std::int64_t>(inputs.size()) >= n_inputs,
                "equivariant_linear: ", inputs.size(), " inputs, expected ", n_inputs);
    for (const at::Tensor& input : inputs)
      TORCH_CHECK(input.dim() == 3 && input.sym_size(0) == inputs[0].sym_size(0) &&
                      input.scalar_type() == matrices.scalar_type() && input.is_floating_point(),
                  "equivariant_linear: expected inputs [n_atoms, components, channels] of the matrices' type, found ",
                  input.scalar_type(), " ", input.sizes());
    for (const Product& product : products)
      TORCH_CHECK(fixed_size(inputs[product.input], 1) == blocks[product.block].components &&
                      fixed_size(inputs[product.input], 2) == product.channels_in,
                  "equivariant_linear: input ", product.input, " is ", inputs[product.input].sizes(),
                  ", expected [n_atoms, ", blocks[product.block].components, ", ", product.channels_in, "]");
  }
};

}  // namespace mlip
