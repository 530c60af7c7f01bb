// The integers of a call of `mlip::gate`, which its implementations (reference, CPU, GPU) share.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "operators/gate/gate_kernels.h"
#include "operators/new_tensor.h"
#include "operators/tracing.h"

namespace mlip {

inline constexpr std::size_t numbers_of_a_piece = 8;

/// The pieces, unpacked and checked against the inputs.
struct GatePlan {
  std::vector<GatePiece<double>> pieces;
  std::vector<std::int64_t> output_components, output_channels;

  GatePlan(at::TensorList inputs, at::IntArrayRef packed, at::ArrayRef<double> factors) {
    TORCH_CHECK(!inputs.empty() && packed.size() == numbers_of_a_piece * factors.size() && !factors.empty(),
                "gate: expected inputs, and pieces of eight numbers and a factor each, found ", inputs.size(),
                " inputs, ", packed.size(), " numbers and ", factors.size(), " factors");
    const std::int64_t n_inputs = static_cast<std::int64_t>(inputs.size());
    for (const at::Tensor& input : inputs)
      TORCH_CHECK(input.dim() == 3 && input.sym_size(0) == inputs[0].sym_size(0) && input.is_floating_point() &&
                      input.scalar_type() == inputs[0].scalar_type(),
                  "gate: expected inputs [n_atoms, components, channels] of one type, found ", input.scalar_type(), " ",
                  input.sizes());
    std::vector<std::int64_t> covered;  // channels of each output that have a piece
    const std::int64_t* row = packed.data();
    for (std::size_t p = 0; p < factors.size(); ++p, row += numbers_of_a_piece) {
      GatePiece<double> piece{};
      const bool fits = row[0] >= 0 && row[0] < n_activations && row[1] > 0 && row[2] >= 0 && row[2] < n_inputs &&
                        row[3] >= 0 && row[4] >= -1 && row[4] < n_inputs && row[5] >= 0 && row[6] >= 0 &&
                        row[6] <= static_cast<std::int64_t>(covered.size()) && row[7] >= 0 &&
                        fixed_size(inputs[row[2]], 1) == 1 && row[3] + row[1] <= fixed_size(inputs[row[2]], 2) &&
                        (row[4] < 0 || row[5] + row[1] <= fixed_size(inputs[row[4]], 2));
      TORCH_CHECK(fits, "gate: piece ", p, " does not fit the inputs");
      piece.activation = static_cast<Activation>(row[0]);
      piece.factor = factors[p];
      piece.channels = row[1];
      piece.gate = row[2];
      piece.gate_first = row[3];
      piece.value = row[4];
      piece.value_first = row[5];
      piece.output = row[6];
      piece.output_first = row[7];
      piece.components = piece.value < 0 ? 1 : fixed_size(inputs[piece.value], 1);
      piece.value_channels = piece.value < 0 ? 0 : fixed_size(inputs[piece.value], 2);
      if (piece.output == static_cast<std::int64_t>(covered.size())) {
        covered.push_back(0);
        output_channels.push_back(0);
        output_components.push_back(piece.components);
      }
      TORCH_CHECK(output_components[piece.output] == piece.components, "gate: piece ", p,
                  " has another l than the output that it belongs to");
      covered[piece.output] += piece.channels;
      output_channels[piece.output] = std::max(output_channels[piece.output], piece.output_first + piece.channels);
      pieces.push_back(piece);
    }
    TORCH_CHECK(covered == output_channels, "gate: an output has channels of no piece, or of several");
    for (GatePiece<double>& piece : pieces) piece.output_channels = output_channels[piece.output];
  }

  std::size_t n_outputs() const { return output_channels.size(); }

  /// Room for each output. @param like an input
  std::vector<at::Tensor> empty_outputs(const at::Tensor& like) const {
    std::vector<at::Tensor> outputs;
    for (std::size_t k = 0; k < n_outputs(); ++k)
      outputs.push_back(new_tensor({like.size(0), output_components[k], output_channels[k]}, like));
    return outputs;
  }

  /// Of the outputs. @param like an input
  /// @throws c10::Error when number, shapes or types do not fit.
  void check_gradients(at::TensorList gradients, const at::Tensor& like) const {
    TORCH_CHECK(gradients.size() == n_outputs(), "gate_backward: ", gradients.size(), " gradients for ", n_outputs(),
                " outputs");
    for (std::size_t k = 0; k < gradients.size(); ++k)
      TORCH_CHECK(gradients[k].numel() == like.size(0) * output_components[k] * output_channels[k] &&
                      gradients[k].scalar_type() == like.scalar_type(),
                  "gate_backward: gradient ", k, " has the wrong shape or type");
  }
};

}  // namespace mlip
