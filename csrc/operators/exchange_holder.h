// The Exchange of a forward pass, kept in autograd's context for the backward pass on whatever thread.
#pragma once

#include <torch/script.h>

#include "core/exchange.h"

namespace mlip {

struct ExchangeHolder : torch::CustomClassHolder {
  explicit ExchangeHolder(Exchange* exchange) : exchange(exchange) {}
  Exchange* exchange;
};

/// The one that is active on this thread.
inline void keep_exchange(torch::autograd::AutogradContext& context) {
  context.saved_data["exchange"] =
      c10::IValue::make_capsule(c10::make_intrusive<ExchangeHolder>(ExchangeScope::active()));
}

/// @return null where none was active
inline Exchange* kept_exchange(torch::autograd::AutogradContext& context) {
  return c10::static_intrusive_pointer_cast<ExchangeHolder>(context.saved_data["exchange"].toCapsule())->exchange;
}

}  // namespace mlip
