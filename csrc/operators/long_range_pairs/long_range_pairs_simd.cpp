// The loops of `mlip::long_range_pairs`, compiled once per instruction set: see simd.h for what may not be used here.
#include "operators/long_range_pairs/long_range_pairs_kernels.h"
#include "operators/simd.h"
#include "operators/vector_functions.h"

namespace mlip {
namespace {

/// A function of the distance, and its slope.
template <typename T>
struct OfDistance {
  typename Vector<T, lanes<T>>::type value, slope;
};

/// 1 up to `on`, 0 from `off`: f / (f + e^(-1/c) + 1e-12) with f = e^(-1/(1-c)), where c runs from 0 to 1 between them.
/// Charged cells notice the 1e-12, which is SO3LR's.
template <typename T>
MLIP_INLINE OfDistance<T> switched(typename Vector<T, lanes<T>>::type r, T on, T off) {
  using Lanes = Vector<T, lanes<T>>;
  using V = typename Lanes::type;
  // Nearer to an end than this an exponential is zero, to more digits than there are.
  const V least = V{} + T(0.01), largest = V{} + T(0.99);
  const V c = (r - on) * (T(1) / (off - on));
  const V a = T(1) / (c < least ? least : c), b = T(1) / (T(1) - (c > largest ? largest : c));
  const auto rising = exponential<T, Lanes>(b - a), falling = exponential<T, Lanes>(b);  // both divided by f
  const V ratio = rising.scale + rising.scale * rising.rest;
  const V small = (falling.scale + falling.scale * falling.rest) * T(1e-12);
  const V s = T(1) / (T(1) + ratio + small);
  // In this order no product overflows.
  return {s, -((s * ratio) * (s * (a * a + b * b)) + (s * small) * (s * b * b)) * (T(1) / (off - on))};
}

/// e^(-x²). The square is taken in two parts, since rounding it would be multiplied by the exponential's slope.
template <typename T>
MLIP_INLINE typename Vector<T, lanes<T>>::type gaussian(typename Vector<T, lanes<T>>::type x) {
  using Lanes = Vector<T, lanes<T>>;
  using V = typename Lanes::type;
  constexpr T splitter = sizeof(T) == 4 ? T(4097) : T(134217729);  // half of the mantissa's bits
  const V big = x * splitter;
  const V high = big - (big - x);
  const auto a = exponential<T, Lanes>(-high * high), b = exponential<T, Lanes>((high - x) * (high + x));
  return (a.scale + a.scale * a.rest) * (b.scale + b.scale * b.rest);
}

/// The law of smeared charges that ends at the cutoff, 1/Å, without e²/4πε₀.
template <typename T>
MLIP_INLINE OfDistance<T> coulomb_law(const PairProblem<T>& problem, typename Vector<T, lanes<T>>::type r) {
  using V = typename Vector<T, lanes<T>>::type;
  constexpr T two_over_root_pi = T(1.1283791670955126);
  const auto& constants = problem.constants;
  const V x = r * (T(1) / constants.width), inverse = T(1) / r, e = gaussian<T>(x);
  // erf(x) = 2/√π x e^(-x²) Σ_n Π_{k=1..n} 2x²/(2k+1), whose terms are all positive
  const V end = V{} + problem.series_end, inside = x > end ? end : x;
  const V square = inside * inside;
  V sum = V{} + T(1);
  for (int64_t k = problem.n_terms; k > 0; --k) sum = sum * square * problem.terms[k - 1] + T(1);
  V erf = two_over_root_pi * inside * e * sum;
  erf = x > end ? V{} + T(1) : erf;
  const auto on = switched<T>(r, constants.on, constants.cutoff);
  const V rest = T(1) - on.value;
  const V law = erf * inverse;
  return {law - constants.potential_at_cutoff - rest * constants.slope_at_cutoff * (r - constants.cutoff),
          (two_over_root_pi / constants.width * e - law) * inverse -
              constants.slope_at_cutoff * (rest - on.slope * (r - constants.cutoff))};
}

/// x^(-1/7) by Newton's iteration, for x > 0.
template <typename T>
MLIP_INLINE typename Vector<T, lanes<T>>::type inverse_seventh_root(typename Vector<T, lanes<T>>::type x) {
  using V = typename Vector<T, lanes<T>>::type;
  using I = typename Vector<typename Floats<T>::Integer, lanes<T>>::type;
  constexpr int iterations = sizeof(T) == 4 ? 4 : 5;
  // The exponent and the mantissa together are about a logarithm, of which one seventh is taken.
  const I bits = bits_as<I>(x);
  const V seventh = __builtin_convertvector(bits - Floats<T>::one, V) * T(-1.0 / 7.0);
  V y = bits_as<V>(__builtin_convertvector(seventh, I) + Floats<T>::one);
  for (int k = 0; k < iterations; ++k) {
    const V y2 = y * y;
    y += y * (T(1) - x * y2 * y2 * y2 * y) * T(1.0 / 7.0);
  }
  return y;
}

/// Some pairs of one centre side by side, the lanes beyond the last being copies of the first.
template <typename T>
struct Pairs {
  static constexpr int L = lanes<T>;
  int64_t n, edges[L], neighbours[L];
  T distances[L], charges[L], polarizabilities[L], c6[L];

  MLIP_INLINE Pairs(const PairProblem<T>& problem, int64_t position, int64_t end) : n(end - position) {
    if (n > L) n = L;
    for (int64_t k = 0; k < L; ++k) {
      const int64_t at = position + (k < n ? k : 0);
      edges[k] = problem.edge_order ? problem.edge_order[at] : at;
      neighbours[k] = problem.neighbours[edges[k]];
      distances[k] = problem.distances[edges[k]];
      charges[k] = problem.charges[neighbours[k]];
      polarizabilities[k] = problem.polarizabilities[neighbours[k]];
      c6[k] = problem.c6[neighbours[k]];
    }
  }
};

/// Dispersion of pairs, eV, and its derivatives.
template <typename T>
struct PairDispersion {
  using V = typename Vector<T, lanes<T>>::type;
  V energy, of_own, of_other, of_own_c6, of_other_c6, of_distance;  // own and other: polarizabilities

  MLIP_INLINE PairDispersion(const PairConstants<T>& constants, V r, T own, T own_c6, V other, V other_c6) {
    const V sum = other + own, half = sum * T(0.5);
    const V inverse = inverse_seventh_root<T>(half), inverse2 = inverse * inverse;
    const V root = half * inverse2 * inverse2 * inverse2;
    const V of_root_by_sum = root / (T(7) * sum);

    const V denominator = T(1) / (own * own * other_c6 + other * other * own_c6);
    const V c6 = T(2) * denominator * own_c6 * other_c6 * own * other;
    const V c6_own = T(2) * denominator * other_c6 * (own_c6 * other - c6 * own);
    const V c6_other = T(2) * denominator * own_c6 * (other_c6 * own - c6 * other);
    const V c6_own_c6 = denominator * other * (T(2) * other_c6 * own - c6 * other);
    const V c6_other_c6 = denominator * own * (T(2) * own_c6 * other - c6 * own);

    const T* const fit = constants.fit;
    const V radius = root * constants.van_der_waals;
    const V width = fit[0] + radius * (fit[1] + radius * (fit[2] + radius * fit[3]));
    const V of_width = fit[1] + radius * (T(2) * fit[2] + radius * (T(3) * fit[3]));
    const V w = width * width, of_w = T(2) * width * of_width * constants.van_der_waals;  // by the root
    const V d = root * root * (constants.damping * constants.damping);
    const V of_d = T(2) * root * (constants.damping * constants.damping);
    const V length = r * (T(1) / constants.bohr), q = length * length;
    const V q3 = q * q * q, q4 = q3 * q, d3 = d * d * d, d4 = d3 * d;
    const V p3 = T(1) / (q3 + d3), p4 = T(1) / (q4 + d4), p5 = T(1) / (q4 * q + d4 * d);
    const V powers = p3 + T(10) * w * p4 + T(122.5) * w * w * p5;
    const V a = T(3) * p3 * p3, b = T(40) * w * p4 * p4, c = T(612.5) * w * w * p5 * p5;
    const V of_q = -(q * q * a + q3 * b + q4 * c);
    const V of_root = -(d * d * a + d3 * b + d4 * c) * of_d + (T(10) * p4 + T(245) * w * p5) * of_w;

    const auto on = switched<T>(r, constants.dispersion_on, constants.cutoff);
    const V factor = on.value * (T(-0.5) * constants.hartree);
    energy = factor * c6 * powers;
    of_own = factor * (c6_own * powers + c6 * of_root * of_root_by_sum);
    of_other = factor * (c6_other * powers + c6 * of_root * of_root_by_sum);
    of_own_c6 = factor * c6_own_c6 * powers;
    of_other_c6 = factor * c6_other_c6 * powers;
    of_distance =
        factor * c6 * of_q * (T(2) * length / constants.bohr) + on.slope * (T(-0.5) * constants.hartree) * c6 * powers;
  }
};

/// Σ of the first n lanes.
template <typename T>
MLIP_INLINE T sum_of(const typename Vector<T, lanes<T>>::type& vector, int64_t n) {
  T total = 0;
  for (int64_t k = 0; k < n; ++k) total += vector[k];
  return total;
}

template <typename T>
void forward(const PairProblem<T>& problem, T* energies, int64_t begin, int64_t end) {
  using Lanes = Vector<T, lanes<T>>;
  for (int64_t i = begin; i < end; ++i) {
    T potential = 0, dispersion = 0;
    const int64_t last = problem.first_edge[i + 1];
    for (int64_t position = problem.first_edge[i]; position < last; position += lanes<T>) {
      const Pairs<T> pairs(problem, position, last);
      const auto r = Lanes::load(pairs.distances);
      const PairDispersion<T> found(problem.constants, r, problem.polarizabilities[i], problem.c6[i],
                                    Lanes::load(pairs.polarizabilities), Lanes::load(pairs.c6));
      potential += sum_of<T>(coulomb_law<T>(problem, r).value * Lanes::load(pairs.charges), pairs.n);
      dispersion += sum_of<T>(found.energy, pairs.n);
    }
    energies[i] = T(0.5) * problem.constants.coulomb * problem.charges[i] * potential + dispersion;
  }
}

template <typename T>
void backward(const PairProblem<T>& problem, const PairGradients<T>& gradients, int64_t begin, int64_t end) {
  using Lanes = Vector<T, lanes<T>>;
  for (int64_t i = begin; i < end; ++i) {
    T of_charge = 0, of_polarizability = 0, of_c6 = 0;
    const T gradient = gradients.energies[i], coulomb = T(0.5) * problem.constants.coulomb * gradient;
    const T charge = problem.charges[i];
    const int64_t last = problem.first_edge[i + 1];
    for (int64_t position = problem.first_edge[i]; position < last; position += lanes<T>) {
      const Pairs<T> pairs(problem, position, last);
      const auto r = Lanes::load(pairs.distances), charges = Lanes::load(pairs.charges);
      const PairDispersion<T> found(problem.constants, r, problem.polarizabilities[i], problem.c6[i],
                                    Lanes::load(pairs.polarizabilities), Lanes::load(pairs.c6));
      const auto law = coulomb_law<T>(problem, r);
      const auto of_charges = coulomb * charge * law.value;
      const auto of_distances = coulomb * charge * charges * law.slope + gradient * found.of_distance;
      of_charge += sum_of<T>(law.value * charges, pairs.n) * coulomb;
      of_polarizability += sum_of<T>(found.of_own, pairs.n) * gradient;
      of_c6 += sum_of<T>(found.of_own_c6, pairs.n) * gradient;
      for (int64_t k = 0; k < pairs.n; ++k) {
        gradients.distances[pairs.edges[k]] = of_distances[k];
        gradients.charges[pairs.neighbours[k]] += of_charges[k];
        gradients.polarizabilities[pairs.neighbours[k]] += gradient * found.of_other[k];
        gradients.c6[pairs.neighbours[k]] += gradient * found.of_other_c6[k];
      }
    }
    gradients.charges[i] += of_charge;
    gradients.polarizabilities[i] += of_polarizability;
    gradients.c6[i] += of_c6;
  }
}

}  // namespace

#define MLIP_PAIR_KERNELS(type, name)                                                                        \
  extern const LongRangePairsKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _long_range_pairs_##name); \
  const LongRangePairsKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _long_range_pairs_##name) = {     \
      forward<type>, backward<type>};
MLIP_PAIR_KERNELS(float, float32)
MLIP_PAIR_KERNELS(double, float64)

}  // namespace mlip
