#include "operators/autograd.h"

#include <torch/script.h>

namespace mlip {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct PassBackHolder : torch::CustomClassHolder {
  explicit PassBackHolder(PassBack call) : call(std::move(call)) {}
  PassBack call;
};

class OperatorCall : public torch::autograd::Function<OperatorCall> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList inputs,
                               const std::function<Recorded()>& forward, PassBack& backward) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    Recorded recorded = forward();
    context->save_for_backward(std::move(recorded.kept));
    context->saved_data["n_inputs"] = static_cast<std::int64_t>(inputs.size());
    context->saved_data["backward"] =
        c10::IValue::make_capsule(c10::make_intrusive<PassBackHolder>(std::move(backward)));
    return std::move(recorded.outputs);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto n_inputs = static_cast<std::size_t>(context->saved_data["n_inputs"].toInt());
    std::vector<bool> wanted;
    for (std::size_t k = 0; k < n_inputs; ++k) wanted.push_back(context->needs_input_grad(k));
    const auto holder = c10::static_intrusive_pointer_cast<PassBackHolder>(context->saved_data["backward"].toCapsule());
    variable_list found = holder->call(gradients, context->get_saved_variables(), wanted);
    constexpr std::size_t n_functions = 2;
    found.resize(n_inputs + n_functions);
    return found;
  }
};

}  // namespace

std::vector<at::Tensor> record(at::TensorList inputs, const std::function<Recorded()>& forward, PassBack backward) {
  if (needs_gradient(inputs)) return OperatorCall::apply(inputs, forward, backward);
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return forward().outputs;
}

bool needs_gradient(at::TensorList tensors) {
  if (!c10::GradMode::is_enabled()) return false;
  for (const at::Tensor& tensor : tensors)
    if (tensor.requires_grad()) return true;
  return false;
}

}  // namespace mlip
