// The operator `mlip::gate`: activated scalars, and blocks of higher l times activated scalars, in one pass.
//
//   gate(inputs, pieces, factors) -> outputs, each [n_atoms, 2l+1, channels]
//
//   inputs    blocks [n_atoms, 2l+1, channels]
//   pieces    int[], eight numbers for each piece, which is a range of channels of one output:
//             activation (see Activation in gate_kernels.h), channels, input of the gates and first channel in it,
//             input of the values (-1 for none) and first channel in it, output, first channel in it
//   factors   float[], one for each piece
//
//   output[m, u] = factor * activation(gate[u]) * value[m, u],    or without the value, and one component
//
// Gates are scalars (l = 0). Outputs are numbered in the order in which pieces first name them, and every channel of an
// output belongs to one piece. The CPU has kernels of its own, for the pass back too, and so have GPUs. Other devices
// compute the same from torch's own operators, which is also the reference that the tests use: `mlip::gate_reference`.
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/native_operator.h"
#include "operators/autograd.h"
#include "operators/gate/gate_kernels.h"
#include "operators/gate/gate_plan.h"
#include "operators/gpu.h"
#include "operators/instruction_sets.h"
#include "operators/new_tensor.h"

namespace mlip {
namespace {

using at::Tensor;

// ---- reference -----------------------------------------------------------------------------------------------

Tensor activated(Activation activation, const Tensor& x) {
  switch (activation) {
    case Activation::silu:
      return at::silu(x);
    case Activation::tanh:
      return at::tanh(x);
    case Activation::sigmoid:
      return at::sigmoid(x);
    case Activation::absolute:
      return at::abs(x);
    case Activation::shifted_softplus:
      return at::softplus(x) - std::log(2.0);
    case Activation::identity:
      break;
  }
  return x;
}

/// The same from torch's operators: any device, differentiable, and slow.
std::vector<Tensor> reference(at::TensorList inputs, at::IntArrayRef packed, at::ArrayRef<double> factors) {
  const GatePlan plan(inputs, packed, factors);
  std::vector<std::vector<std::pair<std::int64_t, Tensor>>> parts(plan.n_outputs());
  for (const GatePiece<double>& piece : plan.pieces) {
    const Tensor gate = inputs[piece.gate].narrow(2, piece.gate_first, piece.channels);
    Tensor part = activated(piece.activation, gate) * piece.factor;
    if (piece.value >= 0) part = part * inputs[piece.value].narrow(2, piece.value_first, piece.channels);
    parts[piece.output].emplace_back(piece.output_first, part);
  }
  std::vector<Tensor> outputs;
  for (auto& own : parts) {
    std::sort(own.begin(), own.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Tensor> in_order;
    for (const auto& part : own) in_order.push_back(part.second);
    outputs.push_back(at::cat(in_order, 2));
  }
  return outputs;
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Contiguous inputs and the kernels' view of them.
template <typename T>
struct CpuCall {
  GatePlan plan;
  std::vector<Tensor> dense;
  std::vector<GatePiece<T>> pieces;
  std::vector<const T*> inputs;
  std::vector<std::int64_t> input_sizes, output_sizes;
  std::int64_t n_atoms;
  GateProblem<T> problem{};

  CpuCall(at::TensorList inputs_, at::IntArrayRef packed, at::ArrayRef<double> factors)
      : plan(inputs_, packed, factors), n_atoms(inputs_[0].size(0)) {
    for (const Tensor& input : inputs_) {
      dense.push_back(input.contiguous());
      inputs.push_back(dense.back().template const_data_ptr<T>());
      input_sizes.push_back(input.size(1) * input.size(2));
    }
    for (const GatePiece<double>& p : plan.pieces)
      pieces.push_back({p.activation, static_cast<T>(p.factor), p.channels, p.gate, p.gate_first, p.value,
                        p.value_first, p.output, p.output_first, p.components, p.value_channels, p.output_channels});
    for (std::size_t k = 0; k < plan.n_outputs(); ++k)
      output_sizes.push_back(plan.output_components[k] * plan.output_channels[k]);
    problem = {pieces.data(),
               static_cast<std::int64_t>(pieces.size()),
               static_cast<std::int64_t>(inputs.size()),
               inputs.data(),
               input_sizes.data(),
               output_sizes.data()};
  }

  static const GateKernels<T>& kernels() { return *instruction_set().kernels<T>().gate; }

  /// body(first atom, last atom + 1), few atoms at a time so that they stay in the cache from piece to piece
  template <typename Body>
  void for_atoms(Body&& body) const {
    constexpr std::int64_t some = 64;  // fewer are not worth waking a thread
    at::parallel_for(0, n_atoms, some, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t first = begin; first < end; first += some) body(first, std::min(first + some, end));
    });
  }
};

std::vector<Tensor> forward_cpu(at::TensorList inputs, at::IntArrayRef packed, at::ArrayRef<double> factors) {
  std::vector<Tensor> outputs;
  AT_DISPATCH_FLOATING_TYPES(inputs[0].scalar_type(), "gate", [&] {
    const CpuCall<scalar_t> call(inputs, packed, factors);
    std::vector<scalar_t*> pointers;
    outputs = call.plan.empty_outputs(inputs[0]);
    for (const Tensor& output : outputs) pointers.push_back(output.data_ptr<scalar_t>());
    call.for_atoms([&](std::int64_t begin, std::int64_t end) {
      call.kernels().forward(call.problem, pointers.data(), begin, end);
    });
  });
  return outputs;
}

/// -> gradients of the inputs
std::vector<Tensor> backward_cpu(at::TensorList gradients, at::TensorList inputs, at::IntArrayRef packed,
                                 at::ArrayRef<double> factors) {
  std::vector<Tensor> results;
  AT_DISPATCH_FLOATING_TYPES(inputs[0].scalar_type(), "gate_backward", [&] {
    const CpuCall<scalar_t> call(inputs, packed, factors);
    call.plan.check_gradients(gradients, inputs[0]);
    std::vector<Tensor> dense;
    std::vector<const scalar_t*> sources;
    std::vector<scalar_t*> targets;
    for (const Tensor& gradient : gradients) {
      dense.push_back(gradient.contiguous());
      sources.push_back(dense.back().const_data_ptr<scalar_t>());
    }
    for (const Tensor& input : inputs) {
      results.push_back(new_tensor(input.sizes(), input));
      targets.push_back(results.back().data_ptr<scalar_t>());
    }
    call.for_atoms([&](std::int64_t begin, std::int64_t end) {
      call.kernels().backward(call.problem, sources.data(), targets.data(), begin, end);
    });
  });
  return results;
}

// ---- autograd ------------------------------------------------------------------------------------------------

std::vector<Tensor> forward_autograd(at::TensorList inputs, at::IntArrayRef pieces, at::ArrayRef<double> factors) {
  if (inputs.empty() || !has_own_kernels(inputs[0].device())) return reference(inputs, pieces, factors);
  const auto forward = [&]() -> Recorded {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("mlip::gate", "").typed<decltype(forward_cpu)>();
    return {op.call(inputs, pieces, factors), inputs.vec()};
  };
  return record(
      inputs, forward,
      [pieces = pieces.vec(), factors = factors.vec()](const auto& gradients, const auto& kept, const auto&) {
        const LastDerivative only("gate");
        static const auto op =
            c10::Dispatcher::singleton().findSchemaOrThrow("mlip::gate_backward", "").typed<decltype(backward_cpu)>();
        return op.call(gradients, kept, pieces, factors);
      });
}

// ---- without autograd ----------------------------------------------------------------------------------------

class NativeGate : public NativeOperator {
 public:
  NativeGate(std::vector<std::int64_t> pieces, std::vector<double> factors)
      : pieces_(std::move(pieces)), factors_(std::move(factors)) {
    for (std::size_t k = 6; k < pieces_.size(); k += numbers_of_a_piece)
      n_outputs_ = std::max(n_outputs_, static_cast<std::size_t>(pieces_[k]) + 1);
  }

  Tensors forward(Tensors inputs, std::int64_t, Kept* kept) const override {
    Tensors outputs = (inputs[0].is_cpu() ? forward_cpu : gpu::gate)(inputs, pieces_, factors_);
    if (kept != nullptr) kept->tensors = std::move(inputs);
    return outputs;
  }

  void backward(const Tensors& gradients, const Kept& kept, const std::vector<bool>& wanted,
                Tensors& sums) const override {
    const auto pass = kept.tensors[0].is_cpu() ? backward_cpu : gpu::gate_backward;
    Tensors found = pass(gradients, kept.tensors, pieces_, factors_);
    for (std::size_t k = 0; k < found.size(); ++k)
      if (wanted[k]) add_gradient(sums[k], std::move(found[k]));
  }

  std::size_t n_outputs() const override { return n_outputs_; }

 private:
  std::vector<std::int64_t> pieces_;
  std::vector<double> factors_;
  std::size_t n_outputs_ = 0;
};

const RegisterNative native(
    "mlip::gate", [](const std::vector<c10::IValue>& arguments, at::Device device) -> std::unique_ptr<NativeOperator> {
      if (!has_own_kernels(device)) return nullptr;
      if (!arguments[0].isNone() || arguments[1].isNone() || arguments[2].isNone()) return nullptr;
      return std::make_unique<NativeGate>(arguments[1].toIntVector(), arguments[2].toDoubleVector());
    });

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def("gate(Tensor[] inputs, int[] pieces, float[] factors) -> Tensor[]");
  library.def("gate_backward(Tensor[] gradients, Tensor[] inputs, int[] pieces, float[] factors) -> Tensor[]");
  library.def("gate_reference(Tensor[] inputs, int[] pieces, float[] factors) -> Tensor[]", mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("gate", mlip::forward_cpu);
  library.impl("gate_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CUDA, library) {
  library.impl("gate", mlip::gpu::gate);
  library.impl("gate_backward", mlip::gpu::gate_backward);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("gate", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("gate", mlip::forward_autograd); }
