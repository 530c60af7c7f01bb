// Functions of vectors, for source files that are compiled once per instruction set: simd.h says why those of <cmath>
// may not be used there.
#pragma once

#include "operators/simd.h"

namespace mlip {
namespace {

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
  using Unsigned = uint32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Integer one = 0x3f800000;        // the bits of 1
  static constexpr Integer sqrt_half = 0x3f3504f3;  // the bits of √½
  static constexpr float rounder = 0x1.8p23f;       // a sum with it has an integer in its last bits
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;  // the first has bits to spare
  static constexpr float pi_high = 0x1.921fb6p+1f, pi_low = -0x1.777a5cp-24f;
  static constexpr float least = -87.0f, largest = 88.0f;  // of what exp is a normal number
  static constexpr int exp_degree = 7, atanh_terms = 7, log_terms = 4, cosine_terms = 7;
};
template <>
struct Floats<double> {
  using Integer = int64_t;
  using Unsigned = uint64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Integer one = 0x3ff0000000000000;
  static constexpr Integer sqrt_half = 0x3fe6a09e667f3bcd;
  static constexpr double rounder = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double pi_high = 0x1.921fb54442d18p+1, pi_low = 0x1.1a62633145c07p-53;
  static constexpr double least = -708.0, largest = 709.0;
  static constexpr int exp_degree = 13, atanh_terms = 17, log_terms = 10, cosine_terms = 11;
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

template <typename T, typename Lanes>
MLIP_INLINE typename Lanes::type sigmoid(typename Lanes::type x) {
  const typename Lanes::type one = typename Lanes::type{} + T(1);
  const auto e = exponential<T, Lanes>(-x);
  return one / (one + (e.scale + e.scale * e.rest));
}

/// d silu(x) / dx, from sigmoid(x).
template <typename T, typename V>
MLIP_INLINE V slope_of_silu(V x, V sigmoid) {
  return sigmoid * (T(1) + x * (T(1) - sigmoid));
}

/// log x of a normal number above zero.
template <typename T, typename Lanes>
MLIP_INLINE typename Lanes::type logarithm(typename Lanes::type x) {
  using F = Floats<T>;
  using V = typename Lanes::type;
  using I = typename Vector<typename F::Integer, Lanes::width>::type;
  using U = typename Vector<typename F::Unsigned, Lanes::width>::type;
  // x = 2^n y with y from √½ to √2
  const I bits = bits_as<I>(x);
  const I n = bits_as<I>(bits_as<U>(bits - F::sqrt_half + F::one) >> F::mantissa_bits) - (F::one >> F::mantissa_bits);
  const V y = bits_as<V>(bits - (n << F::mantissa_bits));
  const V power = bits_as<V>(n + bits_as<typename F::Integer>(F::rounder)) - F::rounder;
  // log y = 2 artanh((y - 1) / (y + 1)), by its series
  const V z = (y - T(1)) / (y + T(1)), square = z * z;
  V sum{};
  for (int k = F::log_terms; k >= 0; --k) sum = sum * square + T(1) / T(2 * k + 1);
  return power * F::ln2_high + (power * F::ln2_low + T(2) * z * sum);
}

template <typename V>
struct CosineAndSine {
  V cosine, sine;
};

/// cos πx and sin πx for x from 0 to 1.
template <typename T, typename Lanes>
MLIP_INLINE CosineAndSine<typename Lanes::type> cosine_and_sine_of_pi(typename Lanes::type x) {
  using V = typename Lanes::type;
  // Sine and cosine of π/2 - πx, by their series
  const V turns = T(0.5) - x, y = turns * Floats<T>::pi_high + turns * Floats<T>::pi_low;
  const V square = y * y, one = V{} + T(1);
  V sine = one, cosine = one;
  for (int k = Floats<T>::cosine_terms; k > 0; --k) {
    sine = one - sine * square * (T(1) / T(2 * k * (2 * k + 1)));
    cosine = one - cosine * square * (T(1) / T(2 * k * (2 * k - 1)));
  }
  return {y * sine, cosine};
}

/// √x of each value.
template <typename T, typename Lanes>
MLIP_INLINE typename Lanes::type square_root(typename Lanes::type x) {
  for (int lane = 0; lane < Lanes::width; ++lane)
    if constexpr (sizeof(T) == sizeof(float))
      x[lane] = __builtin_sqrtf(x[lane]);
    else
      x[lane] = __builtin_sqrt(x[lane]);
  return x;
}

}  // namespace
}  // namespace mlip
