// The loops of `mlip::gate`, compiled once per instruction set: see simd.h for what may not be used here.
#include "operators/gate/gate_kernels.h"
#include "operators/simd.h"
#include "operators/vector_functions.h"

namespace mlip {
namespace {

// ---- activations ----------------------------------------------------------------------------------------------

template <typename V>
struct Activated {
  V value, slope;
};

/// f(x) and f'(x).
template <Activation activation, typename T, typename Lanes>
MLIP_INLINE Activated<typename Lanes::type> activate(typename Lanes::type x) {
  using V = typename Lanes::type;
  const V zero{}, one = zero + T(1);
  if constexpr (activation == Activation::silu) {
    const V s = sigmoid<T, Lanes>(x);
    return {x * s, s * (one + x * (one - s))};
  } else if constexpr (activation == Activation::sigmoid) {
    const V s = sigmoid<T, Lanes>(x);
    return {s, s * (one - s)};
  } else if constexpr (activation == Activation::tanh) {
    // By e^2x - 1, which keeps the digits of small x.
    const auto e = exponential<T, Lanes>(x + x);
    const V minus_one = e.scale * e.rest + (e.scale - one);
    const V t = minus_one / (minus_one + T(2));
    return {t, one - t * t};
  } else if constexpr (activation == Activation::absolute) {
    return {x < zero ? -x : x, x > zero ? one : (x < zero ? -one : zero)};
  } else if constexpr (activation == Activation::shifted_softplus) {
    // log(1 + u) = 2 artanh(u / (2 + u)) with u = e^-|x|, by its series
    const auto e = exponential<T, Lanes>(x < zero ? x : -x);
    const V u = e.scale + e.scale * e.rest, z = u / (u + T(2)), square = z * z;
    V sum = zero;
    for (int k = Floats<T>::atanh_terms; k >= 0; --k) sum = sum * square + T(1) / T(2 * k + 1);
    return {(x > zero ? x : zero) + T(2) * z * sum - T(0.6931471805599453), sigmoid<T, Lanes>(x)};
  } else {
    return {x, one};
  }
}

// ---- loops ---------------------------------------------------------------------------------------------------

/// body(activation as a constant)
template <typename Body>
MLIP_INLINE void with_activation(Activation activation, Body&& body) {
  switch (activation) {
#define MLIP_CASE(name)  \
  case Activation::name: \
    return body([] { return Activation::name; });
    MLIP_CASE(identity)
    MLIP_CASE(silu)
    MLIP_CASE(tanh)
    MLIP_CASE(sigmoid)
    MLIP_CASE(absolute)
    MLIP_CASE(shifted_softplus)
#undef MLIP_CASE
  }
}

template <typename T>
void forward(const GateProblem<T>& problem, T* const* outputs, int64_t begin, int64_t end) {
  for (int64_t p = 0; p < problem.n_pieces; ++p) {
    const GatePiece<T>& piece = problem.pieces[p];
    with_activation(piece.activation, [&](auto activation) {
      for (int64_t atom = begin; atom < end; ++atom) {
        const T* gate = problem.inputs[piece.gate] + atom * problem.input_sizes[piece.gate] + piece.gate_first;
        T* output = outputs[piece.output] + atom * problem.output_sizes[piece.output] + piece.output_first;
        const T* value = nullptr;
        if (piece.value >= 0)
          value = problem.inputs[piece.value] + atom * problem.input_sizes[piece.value] + piece.value_first;
        for_channels<T, false>(piece.channels, [&](int64_t u, auto lanes) MLIP_INLINE_LAMBDA {
          using V = decltype(lanes);
          const auto factor = activate<activation(), T, V>(V::load(gate + u)).value * piece.factor;
          if (value == nullptr) return V::store(output + u, factor);
          for (int64_t m = 0; m < piece.components; ++m)
            V::store(output + m * piece.output_channels + u, V::load(value + m * piece.value_channels + u) * factor);
        });
      }
    });
  }
}

template <typename T>
void backward(const GateProblem<T>& problem, const T* const* output_gradients, T* const* gradients, int64_t begin,
              int64_t end) {
  for (int64_t k = 0; k < problem.n_inputs; ++k) {
    const int64_t size = problem.input_sizes[k];
    for (int64_t v = begin * size; v < end * size; ++v) gradients[k][v] = T(0);
  }
  for (int64_t p = 0; p < problem.n_pieces; ++p) {
    const GatePiece<T>& piece = problem.pieces[p];
    with_activation(piece.activation, [&](auto activation) {
      for (int64_t atom = begin; atom < end; ++atom) {
        const int64_t gate_at = atom * problem.input_sizes[piece.gate] + piece.gate_first;
        const T* gate = problem.inputs[piece.gate] + gate_at;
        T* of_gate = gradients[piece.gate] + gate_at;
        const T* of_output =
            output_gradients[piece.output] + atom * problem.output_sizes[piece.output] + piece.output_first;
        const T* value = nullptr;
        T* of_value = nullptr;
        if (piece.value >= 0) {
          const int64_t value_at = atom * problem.input_sizes[piece.value] + piece.value_first;
          value = problem.inputs[piece.value] + value_at;
          of_value = gradients[piece.value] + value_at;
        }
        for_channels<T, false>(piece.channels, [&](int64_t u, auto lanes) MLIP_INLINE_LAMBDA {
          using V = decltype(lanes);
          const auto activated = activate<activation(), T, V>(V::load(gate + u));
          typename V::type sum{};  // dE/d(activated scalar)
          if (value == nullptr) sum = V::load(of_output + u);
          for (int64_t m = 0; value != nullptr && m < piece.components; ++m) {
            const auto slope = V::load(of_output + m * piece.output_channels + u);
            const int64_t at = m * piece.value_channels + u;
            sum += slope * V::load(value + at);
            V::store(of_value + at, V::load(of_value + at) + slope * (activated.value * piece.factor));
          }
          V::store(of_gate + u, V::load(of_gate + u) + sum * (activated.slope * piece.factor));
        });
      }
    });
  }
}

}  // namespace

extern const GateKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _gate_float32);
extern const GateKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _gate_float64);
const GateKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _gate_float32) = {forward<float>, backward<float>};
const GateKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _gate_float64) = {forward<double>, backward<double>};

}  // namespace mlip
