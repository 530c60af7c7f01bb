// The loops of `mlip::gate`, compiled once per instruction set: see simd.h for what may not be used here, the functions
// of <cmath> among it.
#include "operators/gate/gate_kernels.h"
#include "operators/simd.h"

namespace mlip {
namespace {

// ---- functions of vectors ------------------------------------------------------------------------------------

template <typename To, typename From>
MLIP_INLINE To bits_as(const From& value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  __builtin_memcpy(&result, &value, sizeof(To));
  return result;
}

/// Numbers of IEEE 754, and how exp takes them apart.
template <typename T>
struct Floats;
template <>
struct Floats<float> {
  using Integer = int32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Integer one = 0x3f800000;   // the bits of 1
  static constexpr float rounder = 0x1.8p23f;  // a sum with it has an integer in its last bits
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;  // the first has bits to spare
  static constexpr float least = -87.0f, largest = 88.0f;                     // of what exp is a normal number
  static constexpr int exp_degree = 7, atanh_terms = 7;
};
template <>
struct Floats<double> {
  using Integer = int64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Integer one = 0x3ff0000000000000;
  static constexpr double rounder = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double least = -708.0, largest = 709.0;
  static constexpr int exp_degree = 13, atanh_terms = 17;
};

/// e^x = scale * (1 + rest), |rest| < 0.42. Not-a-number stays one.
template <typename V>
struct Exponential {
  V scale, rest;
};

template <typename T, typename Lanes>
MLIP_INLINE Exponential<typename Lanes::type> exponential(typename Lanes::type x) {
  using V = typename Lanes::type;
  using I = typename Vector<typename Floats<T>::Integer, Lanes::width>::type;
  const V least = V{} + Floats<T>::least, largest = V{} + Floats<T>::largest;
  x = x < least ? least : x;
  x = x > largest ? largest : x;
  const V shifted = x * T(1.4426950408889634) + Floats<T>::rounder;
  const V n = shifted - Floats<T>::rounder;
  const V r = x - n * Floats<T>::ln2_high - n * Floats<T>::ln2_low;
  V rest = V{} + T(1);  // Σ r^k / k! by Horner's rule, without the term 1
  for (int k = Floats<T>::exp_degree; k > 1; --k) rest = rest * r * (T(1) / T(k)) + T(1);
  const I scale = (bits_as<I>(shifted) << Floats<T>::mantissa_bits) + Floats<T>::one;
  return {bits_as<V>(scale), rest * r};
}

template <typename V>
struct Activated {
  V value, slope;
};

/// f(x) and f'(x).
template <Activation activation, typename T, typename Lanes>
MLIP_INLINE Activated<typename Lanes::type> activate(typename Lanes::type x) {
  using V = typename Lanes::type;
  const V zero{}, one = zero + T(1);
  const auto sigmoid = [&](V y) MLIP_INLINE_LAMBDA {
    const auto e = exponential<T, Lanes>(-y);
    return one / (one + (e.scale + e.scale * e.rest));
  };
  if constexpr (activation == Activation::silu) {
    const V s = sigmoid(x);
    return {x * s, s * (one + x * (one - s))};
  } else if constexpr (activation == Activation::sigmoid) {
    const V s = sigmoid(x);
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
    return {(x > zero ? x : zero) + T(2) * z * sum - T(0.6931471805599453), sigmoid(x)};
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
