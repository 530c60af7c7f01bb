// The activations of `mlip::gate`. Compiled for the CPU and, as text, for GPUs, so without a standard library.
#pragma once

namespace mlip {

/// Functions of one scalar. Their numbers are part of the operator's version.
enum class Activation : int { identity, silu, tanh, sigmoid, absolute, shifted_softplus };
inline constexpr int n_activations = 6;

}  // namespace mlip
