// The host's side of gate.cu: writes the description of a gate that the kernels are compiled with, and launches them.
#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "gpu/runtime.h"
#include "operators/gate/gate_arguments.h"
#include "operators/gate/gate_plan.h"
#include "operators/gpu.h"

namespace mlip::gpu {
namespace {

using at::Tensor;

constexpr int threads_per_block = 128;

/// The text that gate.cu is compiled behind.
std::string describe(const GatePlan& plan, at::TensorList inputs) {
  std::int64_t output_channels = 0, input_channels = 0;
  std::string pieces, blocks;
  for (std::size_t p = 0; p < plan.pieces.size(); ++p) {
    const GatePiece<double>& piece = plan.pieces[p];
    pieces +=
        "template <> struct Piece<" + std::to_string(p) + "> {\n" +
        constant("activation", static_cast<int>(piece.activation)) +
        "  static constexpr real factor = " + real_number(piece.factor, inputs[0].scalar_type()) + ";\n" +
        constant("channels", piece.channels) + constant("gate", piece.gate) + constant("gate_first", piece.gate_first) +
        constant("value", piece.value) + constant("value_first", piece.value_first) + constant("output", piece.output) +
        constant("output_first", piece.output_first) + constant("components", piece.components) +
        constant("value_channels", piece.value_channels) + constant("output_channels", piece.output_channels) + "};\n";
    output_channels += piece.channels;
  }
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    blocks += "template <> struct Input<" + std::to_string(k) + "> {\n" + constant("components", inputs[k].size(1)) +
              constant("channels", inputs[k].size(2)) + "};\n";
    input_channels += inputs[k].size(2);
  }
  return real_type(inputs[0].scalar_type()) +
         "namespace {\nconstexpr int n_pieces = " + std::to_string(plan.pieces.size()) +
         ", n_inputs = " + std::to_string(inputs.size()) + ", n_output_channels = " + std::to_string(output_channels) +
         ", n_input_channels = " + std::to_string(input_channels) +
         ";\ntemplate <int P> struct Piece;\ntemplate <int K> struct Input;\n" + pieces + blocks + "}  // namespace\n";
}

/// The text of both kernels of a gate, written at the first call.
const std::string& source_of(const GatePlan& plan, at::TensorList inputs, at::IntArrayRef pieces,
                             at::ArrayRef<double> factors) {
  using Gate = std::tuple<at::ScalarType, std::vector<std::int64_t>, std::vector<std::int64_t>, std::vector<double>>;
  static std::mutex mutex;
  static std::map<Gate, std::string> known;
  std::vector<std::int64_t> sizes;
  for (const Tensor& input : inputs) sizes.insert(sizes.end(), {input.size(1), input.size(2)});
  const std::lock_guard<std::mutex> lock(mutex);
  std::string& found = known[{inputs[0].scalar_type(), std::move(sizes), pieces.vec(), factors.vec()}];
  if (found.empty())
    found = gate_activation_text + std::string(gate_arguments_text) + describe(plan, inputs) + warp_text + gate_text;
  return found;
}

/// Contiguous inputs, checked, and what both kernels are passed.
struct Call {
  GatePlan plan;
  at::Device device;
  const std::string& source;
  std::vector<Tensor> dense;
  GateArguments arguments{};

  Call(at::TensorList inputs, at::IntArrayRef pieces, at::ArrayRef<double> factors)
      : plan(inputs, pieces, factors), device(inputs[0].device()), source(source_of(plan, inputs, pieces, factors)) {
    TORCH_CHECK(inputs.size() <= most_gate_blocks && plan.n_outputs() <= most_gate_blocks, "gate: ", inputs.size(),
                " inputs and ", plan.n_outputs(), " outputs, at most ", most_gate_blocks, " on a GPU");
    arguments.n_atoms = inputs[0].size(0);
    for (std::size_t k = 0; k < inputs.size(); ++k) arguments.inputs[k] = pointer(inputs[k]);
  }

  const void* pointer(const Tensor& tensor) {
    dense.push_back(tensor.contiguous());
    return dense.back().const_data_ptr();
  }

  /// @param channels over which the threads run, for each atom
  void launch(const char* name, std::int64_t channels) const {
    runtime()
        .kernel(source, name, device)
        ->launch((arguments.n_atoms * channels + threads_per_block - 1) / threads_per_block, threads_per_block, 0,
                 &arguments);
  }
};

}  // namespace

std::vector<Tensor> gate(at::TensorList inputs, at::IntArrayRef pieces, at::ArrayRef<double> factors) {
  const c10::DeviceGuard guard(inputs[0].device());
  Call call(inputs, pieces, factors);
  std::vector<Tensor> outputs = call.plan.empty_outputs(inputs[0]);
  std::int64_t channels = 0;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    call.arguments.outputs[k] = outputs[k].mutable_data_ptr();
    channels += call.plan.output_channels[k];
  }
  call.launch("gate", channels);
  return outputs;
}

std::vector<Tensor> gate_backward(at::TensorList gradients, at::TensorList inputs, at::IntArrayRef pieces,
                                  at::ArrayRef<double> factors) {
  const c10::DeviceGuard guard(inputs[0].device());
  Call call(inputs, pieces, factors);
  call.plan.check_gradients(gradients, inputs[0]);
  for (std::size_t k = 0; k < gradients.size(); ++k) call.arguments.output_gradients[k] = call.pointer(gradients[k]);
  std::vector<Tensor> results;
  std::int64_t channels = 0;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    results.push_back(at::empty(inputs[k].sizes(), inputs[k].options()));
    call.arguments.input_gradients[k] = results[k].mutable_data_ptr();
    channels += inputs[k].size(2);
  }
  call.launch("gate_to_inputs", channels);
  return results;
}

}  // namespace mlip::gpu
