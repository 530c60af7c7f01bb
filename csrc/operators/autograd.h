// How autograd learns of the operators' own pass back.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <functional>
#include <utility>
#include <vector>

namespace mlip {

/// What a pass forward gives.
struct Recorded {
  std::vector<at::Tensor> outputs;
  std::vector<at::Tensor> kept;  ///< for the pass back: inputs, outputs and others
};

/// @param gradients of the outputs; zeros where autograd has none
/// @param kept by the pass forward
/// @param wanted inputs whose gradients are asked for
/// @return gradients of the inputs, undefined for none; those of the last inputs may be left out
using PassBack = std::function<std::vector<at::Tensor>(
    const std::vector<at::Tensor>& gradients, const std::vector<at::Tensor>& kept, const std::vector<bool>& wanted)>;

/// One call of an operator, in the way of torch::autograd::Function; not a template, which each operator would compile
/// again, in half the time of its file.
///
/// @param inputs all that may have a gradient
/// @param forward called below autograd
/// @return outputs
std::vector<at::Tensor> record(at::TensorList inputs, const std::function<Recorded()>& forward, PassBack backward);

/// Whether autograd asks for a gradient of one of the tensors.
bool needs_gradient(at::TensorList tensors);

/// A pass back that is a kernel of its own: no derivative of it is known, so autograd is left out.
class LastDerivative {
 public:
  /// @throws c10::Error if autograd records the pass, to differentiate it again.
  explicit LastDerivative(const char* name) {
    TORCH_CHECK_NOT_IMPLEMENTED(!c10::GradMode::is_enabled(), "mlip::", name,
                                " has no second derivative. Leave out create_graph=True, or export with --no-fuse");
  }

 private:
  at::AutoDispatchBelowADInplaceOrView below_autograd_;
};

}  // namespace mlip
