// The loops of `mlip::gated_pairs`, compiled once per instruction set: see simd.h for what may not be used here. They
// are plain loops over channels, of which the compiler makes vectors.
#include "operators/gated_pairs/gated_pairs_kernels.h"
#include "operators/simd.h"

namespace mlip {
namespace {

/// What `exponential` needs of a type.
template <typename T>
struct Floating;
template <>
struct Floating<float> {
  using Bits = std::uint32_t;
  static constexpr float largest = 87.0F;            // e^largest and its inverse are normal numbers
  static constexpr float magic = 12582912.0F;        // 1.5 2^23: what is added to it is rounded to an integer
  static constexpr float ln2_high = 0.693359375F;    // with so few digits that small multiples are exact
  static constexpr float ln2_low = -2.12194440e-4F;  // ln 2 - ln2_high
  static constexpr int mantissa = 23, bias = 127, degree = 7;
};
template <>
struct Floating<double> {
  using Bits = std::uint64_t;
  static constexpr double largest = 708.0;
  static constexpr double magic = 6755399441055744.0;  // 1.5 2^52
  static constexpr double ln2_high = 6.93147180369123816490e-01;
  static constexpr double ln2_low = 1.90821492927058770002e-10;
  static constexpr int mantissa = 52, bias = 1023, degree = 13;
};

/// e^x, right to about two units of the last place; x is taken to be within ±largest.
template <typename T>
MLIP_INLINE T exponential(T x) {
  using F = Floating<T>;
  x = x < -F::largest ? -F::largest : x;
  x = x > F::largest ? F::largest : x;
  const T shifted = x * T(1.44269504088896340736) + F::magic;
  const T n = shifted - F::magic;  // x / ln 2, rounded
  const T r = (x - n * F::ln2_high) - n * F::ln2_low;
  T power = T(1);  // Taylor's series of e^r, |r| < 0.35, from its last term
  for (int k = F::degree; k > 0; --k) power = T(1) + power * r * (T(1) / T(k));
  // The lowest bits of `shifted` are n: they become the exponent of 2^n.
  typename F::Bits bits;
  __builtin_memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << F::mantissa) + (typename F::Bits(F::bias) << F::mantissa);
  T two_to_n;
  __builtin_memcpy(&two_to_n, &bits, sizeof bits);
  return power * two_to_n;
}

template <typename T>
MLIP_INLINE T sigmoid(T x) {
  return T(1) / (T(1) + exponential(-x));
}

template <typename T>
void sum(const T* of_centres, const T* of_neighbours, const T* of_edges, const int64_t* centres,
         const int64_t* neighbours, int64_t channels, T* inputs, T* activated, int64_t begin, int64_t end) {
  const int64_t width = 2 * channels;
  for (int64_t e = begin; e < end; ++e) {
    const T* const a = of_centres + centres[e] * width;
    const T* const b = of_neighbours + neighbours[e] * width;
    const T* const c = of_edges + e * width;
    T* const input = inputs + e * width;
    T* const result = activated + e * width;
#pragma GCC ivdep
    for (int64_t u = 0; u < width; ++u) {
      const T x = a[u] + b[u] + c[u];
      input[u] = x;
      result[u] = x * sigmoid(x);
    }
  }
}

template <typename T>
void gate(const T* both, const T* factors, int64_t channels, T* results, int64_t begin, int64_t end) {
  for (int64_t e = begin; e < end; ++e) {
    const T* const value = both + 2 * e * channels;
    const T* const gates = value + channels;
    const T* const factor = factors + e * channels;
    T* const result = results + e * channels;
#pragma GCC ivdep
    for (int64_t u = 0; u < channels; ++u)
      result[u] = value[u] * factor[u] / ((T(1) + exponential(-value[u])) * (T(1) + exponential(-gates[u])));
  }
}

template <typename T>
void gate_backward(const T* gradients, const T* both, const T* factors, int64_t channels, T* both_gradients,
                   T* factor_gradients, int64_t begin, int64_t end) {
  for (int64_t e = begin; e < end; ++e) {
    const T* const value = both + 2 * e * channels;
    const T* const gates = value + channels;
    const T* const factor = factors + e * channels;
    const T* const gradient = gradients + e * channels;
    T* const of_value = both_gradients + 2 * e * channels;
    T* const of_gate = of_value + channels;
    T* const of_factor = factor_gradients + e * channels;
#pragma GCC ivdep
    for (int64_t u = 0; u < channels; ++u) {
      const T s = sigmoid(value[u]), g = sigmoid(gates[u]);
      const T activated = value[u] * s, upstream = gradient[u] * g;
      of_factor[u] = upstream * activated;
      const T inner = upstream * factor[u];
      of_value[u] = inner * s * (T(1) + value[u] * (T(1) - s));
      of_gate[u] = inner * activated * (T(1) - g);
    }
  }
}

template <typename T>
void activated_backward(const T* inputs, int64_t channels, T* gradients, int64_t begin, int64_t end) {
#pragma GCC ivdep
  for (int64_t k = 2 * begin * channels; k < 2 * end * channels; ++k) {
    const T s = sigmoid(inputs[k]);
    gradients[k] *= s * (T(1) + inputs[k] * (T(1) - s));
  }
}

}  // namespace

extern const GatedPairsKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _gated_pairs_float32);
extern const GatedPairsKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _gated_pairs_float64);
const GatedPairsKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _gated_pairs_float32) = {
    sum<float>, gate<float>, gate_backward<float>, activated_backward<float>};
const GatedPairsKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _gated_pairs_float64) = {
    sum<double>, gate<double>, gate_backward<double>, activated_backward<double>};

}  // namespace mlip
