// GPU kernels of `mlip::gate`; the formula is in gate.cpp.
//
// Compiled at run time behind gate_activation.h, gate_arguments.h, gpu/warp.cu and the description of one gate, which
// gate_gpu.cpp writes:
//
//   real                                   float or double
//   n_pieces, n_inputs
//   n_output_channels, n_input_channels    of all outputs, and of all inputs
//   Piece<P>                               a piece: sizes and offsets as in GatePiece, its activation and factor
//   Input<K>                               components and channels of an input
//
// A thread has one channel of one atom, with all its components: of the outputs in the pass forward, of the inputs in
// the pass back, where it adds up what each piece gives. So every value is written once, whatever the pieces share.

namespace {

using mlip::Activation;
using mlip::gpu::GateArguments;

struct Activated {
  real value, slope;
};

__device__ __forceinline__ real sigmoid(real x) { return real(1) / (real(1) + exp(-x)); }

template <Activation activation>
__device__ __forceinline__ Activated activate(real x) {
  if constexpr (activation == Activation::silu) {
    const real s = sigmoid(x);
    return {x * s, s * (real(1) + x * (real(1) - s))};
  } else if constexpr (activation == Activation::sigmoid) {
    const real s = sigmoid(x);
    return {s, s * (real(1) - s)};
  } else if constexpr (activation == Activation::tanh) {
    const real t = tanh(x);
    return {t, real(1) - t * t};
  } else if constexpr (activation == Activation::absolute) {
    return {fabs(x), x > 0 ? real(1) : (x < 0 ? real(-1) : real(0))};
  } else if constexpr (activation == Activation::shifted_softplus) {
    constexpr real log_2 = real(0.6931471805599453);
    return {(x > 0 ? x : real(0)) + log1p(exp(-fabs(x))) - log_2, sigmoid(x)};
  } else {
    return {x, real(1)};
  }
}

/// Of channel u of piece P, with its factor.
template <int P>
__device__ __forceinline__ Activated activated_gate(const GateArguments& a, long long atom, int u) {
  using This = Piece<P>;
  const real* const gates =
      static_cast<const real*>(a.inputs[This::gate]) + atom * Input<This::gate>::channels + This::gate_first;
  const Activated found = activate<static_cast<Activation>(This::activation)>(__ldg(gates + u));
  return {found.value * This::factor, found.slope * This::factor};
}

/// The values that gates multiply, from the first channel of piece P.
template <int P>
__device__ __forceinline__ const real* values(const GateArguments& a, long long atom) {
  using This = Piece<P>;
  return static_cast<const real*>(a.inputs[This::value]) + atom * (This::components * This::value_channels) +
         This::value_first;
}

/// Where the first channel of piece P is among the values of its output.
template <int P>
__device__ __forceinline__ long long place_in_output(long long atom) {
  using This = Piece<P>;
  return atom * (This::components * This::output_channels) + This::output_first;
}

/// @param channel  among those of piece P and the following ones
template <int P>
__device__ __forceinline__ void write_output(const GateArguments& a, long long atom, int channel) {
  if constexpr (P < n_pieces) {
    using This = Piece<P>;
    if (channel >= This::channels) return write_output<P + 1>(a, atom, channel - This::channels);
    const real gate = activated_gate<P>(a, atom, channel).value;
    real* const output = static_cast<real*>(a.outputs[This::output]) + place_in_output<P>(atom) + channel;
    if constexpr (This::value < 0) {
      *output = gate;
    } else {
      const real* const value = values<P>(a, atom) + channel;
#pragma unroll
      for (int m = 0; m < This::components; ++m)
        output[m * This::output_channels] = gate * __ldg(value + m * This::value_channels);
    }
  }
}

/// What piece P and the following ones give to channel u of input K.
template <int K, int P>
__device__ __forceinline__ void add_pieces(const GateArguments& a, long long atom, int u, real* sums) {
  if constexpr (P < n_pieces) {
    using This = Piece<P>;
    const real* const gradient = static_cast<const real*>(a.output_gradients[This::output]) + place_in_output<P>(atom);
    if constexpr (This::value == K) {
      const int channel = u - This::value_first;
      if (channel >= 0 && channel < This::channels) {
        const real gate = activated_gate<P>(a, atom, channel).value;
#pragma unroll
        for (int m = 0; m < This::components; ++m)
          sums[m] += gate * __ldg(gradient + m * This::output_channels + channel);
      }
    }
    if constexpr (This::gate == K) {
      const int channel = u - This::gate_first;
      if (channel >= 0 && channel < This::channels) {
        real of_gate = 0;
        if constexpr (This::value < 0) {
          of_gate = __ldg(gradient + channel);
        } else {
          const real* const value = values<P>(a, atom) + channel;
#pragma unroll
          for (int m = 0; m < This::components; ++m)
            of_gate += __ldg(gradient + m * This::output_channels + channel) * __ldg(value + m * This::value_channels);
        }
        sums[0] += of_gate * activated_gate<P>(a, atom, channel).slope;
      }
    }
    add_pieces<K, P + 1>(a, atom, u, sums);
  }
}

/// @param channel  among those of input K and the following ones
template <int K>
__device__ __forceinline__ void write_gradient(const GateArguments& a, long long atom, int channel) {
  if constexpr (K < n_inputs) {
    using This = Input<K>;
    if (channel >= This::channels) return write_gradient<K + 1>(a, atom, channel - This::channels);
    real sums[This::components] = {};
    add_pieces<K, 0>(a, atom, channel, sums);
    real* const target =
        static_cast<real*>(a.input_gradients[K]) + atom * (This::components * This::channels) + channel;
#pragma unroll
    for (int m = 0; m < This::components; ++m) target[m * This::channels] = sums[m];
  }
}

}  // namespace

extern "C" __global__ void gate(const GateArguments a) {
  const long long thread = thread_index();
  if (thread >= a.n_atoms * n_output_channels) return;
  write_output<0>(a, thread / n_output_channels, static_cast<int>(thread % n_output_channels));
}

extern "C" __global__ void gate_to_inputs(const GateArguments a) {
  const long long thread = thread_index();
  if (thread >= a.n_atoms * n_input_channels) return;
  write_gradient<0>(a, thread / n_input_channels, static_cast<int>(thread % n_input_channels));
}
