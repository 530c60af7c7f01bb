// The loops of `mlip::adaptive_cutoffs`, compiled once per instruction set: see simd.h for what may not be used here.
#include "operators/adaptive_cutoffs/adaptive_cutoffs_kernels.h"
#include "operators/simd.h"
#include "operators/vector_functions.h"

namespace mlip {
namespace {

template <typename V>
struct ValueAndSlope {
  V value, slope;
};

/// The weights of some neighbours within the cutoff r, and their slopes by r.
template <typename T>
MLIP_INLINE ValueAndSlope<typename Vector<T, lanes<T>>::type> weigh(typename Vector<T, lanes<T>>::type distances, T r,
                                                                    T width) {
  using V = Vector<T, lanes<T>>;
  using Values = typename V::type;
  const Values zero{}, one = zero + T(1), least = zero + T(boundary), largest = one - T(boundary);
  const Values s = (distances - (r - width)) / width;
  Values inside = s < least ? least : s;
  inside = inside > largest ? largest : inside;
  const auto [cosine, sine] = cosine_and_sine_of_pi<T, V>(inside);
  const Values cotangent = cosine / sine;
  // (1 + tanh x) / 2, from the exponential that is at most 1
  const auto power = exponential<T, V>(T(-2) * (cotangent < zero ? -cotangent : cotangent));
  const Values e = power.scale + power.scale * power.rest, inverse = one / (one + e);
  const Values value = (cotangent < zero ? e : one) * inverse;
  const Values slope = (T(6.283185307179586) / width) * e * inverse * inverse / (sine * sine);
  return {s <= zero ? one : (s >= one ? zero : value), s <= zero ? zero : (s >= one ? zero : slope)};
}

/// The number of neighbours of an atom within the cutoff r with the term of the cube, and its slope.
template <typename T>
ValueAndSlope<T> count(const AdaptiveCutoffsProblem<T>& problem, const T* distances, int64_t n, T r) {
  using V = Vector<T, lanes<T>>;
  typename V::type values{}, slopes{};
  for (int64_t e = 0; e < n; e += lanes<T>) {
    const auto weights = weigh<T>(V::load(distances + e), r, problem.width);
    values += weights.value;
    slopes += weights.slope;
  }
  const T x = r / problem.cutoff;
  return {sum_of_lanes<T>(values) + problem.n_neighbours * x * x * x,
          sum_of_lanes<T>(slopes) + T(3) * problem.n_neighbours * x * x / problem.cutoff};
}

template <typename T>
void solve(const AdaptiveCutoffsProblem<T>& problem, int64_t begin, int64_t end, T* cutoffs, T* slopes, T* scratch) {
  using V = Vector<T, lanes<T>>;
  const T beyond = T(2) * problem.cutoff + problem.width;  // no cutoff reaches there
  for (int64_t atom = begin; atom < end; ++atom) {
    const int64_t first = problem.first[atom], n = problem.first[atom + 1] - first;
    for (int64_t e = 0; e < n; ++e) scratch[e] = problem.distances[first + e];
    for (int64_t e = n; e < n + lanes<T>; ++e) scratch[e] = beyond;
    // The root stays between both; a step that would leave them goes to their middle.
    T low = 0, high = problem.cutoff, r = T(0.5) * problem.cutoff;
    for (int step = 0; step < newton_steps; ++step) {
      const auto [value, slope] = count(problem, scratch, n, r);
      const T excess = value - problem.n_neighbours;
      (excess <= T(0) ? low : high) = r;
      const T next = r - excess / (slope < T(least_slope) ? T(least_slope) : slope);
      r = next >= low && next <= high ? next : T(0.5) * (low + high);
    }
    const auto [value, slope] = count(problem, scratch, n, r);
    const T inverse = T(1) / (slope < T(least_slope) ? T(least_slope) : slope);
    const T root = r - (value - problem.n_neighbours) * inverse, least = T(least_part_of_cutoff) * problem.cutoff;
    const bool clamped = root < least || root > problem.cutoff;
    cutoffs[atom] = root < least ? least : root > problem.cutoff ? problem.cutoff : root;
    for (int64_t e = 0; e < n; e += lanes<T>)
      V::store(scratch + e, weigh<T>(V::load(scratch + e), r, problem.width).slope * (clamped ? T(0) : inverse));
    for (int64_t e = 0; e < n; ++e) slopes[first + e] = scratch[e];
  }
}

}  // namespace

#define MLIP_ADAPTIVE_CUTOFFS_KERNELS(type, name)                                                             \
  extern const AdaptiveCutoffsKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _adaptive_cutoffs_##name); \
  const AdaptiveCutoffsKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _adaptive_cutoffs_##name) = {solve<type>};
MLIP_ADAPTIVE_CUTOFFS_KERNELS(float, float32)
MLIP_ADAPTIVE_CUTOFFS_KERNELS(double, float64)

}  // namespace mlip
