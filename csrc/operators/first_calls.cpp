// The first call of each of MKL's vector functions, made on one thread when this library is loaded.
//
// torch computes exp, sqrt, cos and others by MKL, each thread a part of the numbers. MKL chooses a function's code for
// the processor in its first call. Where several threads make that call at once, MKL 2024.2, which torch's wheels hold,
// may give one of them code of low accuracy: the part of that thread then has relative errors up to 5e-4 in float32,
// once and silently (https://github.com/pytorch/pytorch/issues/188792). Later calls are right.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

namespace {

bool make_first_calls() {
  const c10::NoGradGuard no_grad;
  for (const auto type : {at::kFloat, at::kDouble}) {
    const at::Tensor x = at::full({16}, 0.5, type);
    // What ATen/cpu/vml.h hands to MKL, in its order.
    for (const auto function : {at::acos, at::asin, at::atan, at::cos, at::erf, at::erfc, at::erfinv, at::exp, at::log,
                                at::log10, at::sin, at::sqrt, at::tan, at::tanh, at::trunc, at::log2})
      function(x);
  }
  return true;
}

[[maybe_unused]] const bool made = make_first_calls();

}  // namespace
