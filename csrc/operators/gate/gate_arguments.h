// What the host passes to the kernels of gate.cu. Compiled on both sides, so without a standard library.
#pragma once

namespace mlip::gpu {

constexpr int most_gate_blocks = 32;

/// Pointers to device memory, [n_atoms, components, channels] each; `void` stands for the type of the model, float or
/// double.
struct GateArguments {
  long long n_atoms;
  const void* inputs[most_gate_blocks];
  void* outputs[most_gate_blocks];                 ///< forward, overwritten
  const void* output_gradients[most_gate_blocks];  ///< backward
  void* input_gradients[most_gate_blocks];         ///< backward, overwritten
};

}  // namespace mlip::gpu
