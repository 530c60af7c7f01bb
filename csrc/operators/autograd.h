// What the operators' autograd functions share, beside torch's own.
#pragma once

#include <torch/script.h>

namespace mlip {

/// The backward pass of an operator that is a kernel of its own: no derivative of it is known, so autograd is left out.
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

/// Constants of a call, kept for its backward pass as they are. `saved_data` would store each number as an IValue.
template <typename Constants>
struct ConstantsHolder : torch::CustomClassHolder {
  explicit ConstantsHolder(Constants values) : values(std::move(values)) {}
  Constants values;
};

template <typename Constants>
void keep_constants(torch::autograd::AutogradContext& context, Constants values) {
  context.saved_data["constants"] =
      c10::IValue::make_capsule(c10::make_intrusive<ConstantsHolder<Constants>>(std::move(values)));
}

/// @return what keep_constants was given; it lives as long as the context.
template <typename Constants>
const Constants& kept_constants(torch::autograd::AutogradContext& context) {
  return c10::static_intrusive_pointer_cast<ConstantsHolder<Constants>>(context.saved_data["constants"].toCapsule())
      ->values;
}

}  // namespace mlip
