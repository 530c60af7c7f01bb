// The loops of `mlip::symmetry_functions`, compiled once per instruction set: see simd.h for what may not be used here.
#include "operators/simd.h"
#include "operators/symmetry_functions/symmetry_functions_kernels.h"
#include "operators/vector_functions.h"

namespace mlip {
namespace {

template <typename T>
using Whole = Vector<T, lanes<T>>;
template <typename T>
using Lanes = typename Whole<T>::type;

/// The neighbours of one centre by element, those of each element filled up to whole vectors; then the near ones,
/// within the angular cutoff, without gaps.
template <typename T>
struct Neighbourhood {
  T *x, *y, *z;                  ///< of the direction
  T *distance, *cutoff, *slope;  ///< the cutoff function and its derivative, zero where filled up
  T* of_distance;                ///< gradient of the energy
  T *near_direction, *near_distance, *near_cutoff, *near_slope;  ///< directions [n_near, 4], the fourth is zero
  T *of_near_direction, *of_near_distance;                       ///< gradients
  T *values, *slopes;                                            ///< of functions at some pairs, a vector each
  T* sums;                                                       ///< of functions over pairs, a vector each
  int64_t *edge, *near_place;           ///< edge of each neighbour; which neighbour a near one is
  int64_t *first, *count, *first_near;  ///< by element

  Neighbourhood(const SymmetryFunctionsProblem<T>& problem, T* memory, int64_t* indices) {
    const int64_t n = problem.capacity, n_elements = problem.n_elements;
    const auto take = [](auto*& free, int64_t size) MLIP_INLINE_LAMBDA {
      auto* const taken = free;
      free += size;
      return taken;
    };
    x = take(memory, n);
    y = take(memory, n);
    z = take(memory, n);
    distance = take(memory, n);
    cutoff = take(memory, n);
    slope = take(memory, n);
    of_distance = take(memory, n);
    near_direction = take(memory, 4 * n);
    near_distance = take(memory, n);
    near_cutoff = take(memory, n);
    near_slope = take(memory, n);
    of_near_direction = take(memory, 4 * n);
    of_near_distance = take(memory, n);
    values = take(memory, problem.n_shifts * lanes<T>);
    slopes = take(memory, problem.n_shifts * lanes<T>);
    sums = memory;
    edge = take(indices, n);
    near_place = take(indices, n);
    first = take(indices, n_elements + 1);
    count = take(indices, n_elements);
    first_near = indices;
  }

  int64_t n_near(int64_t n_elements) const { return first_near[n_elements]; }
};

/// Cutoff function and its derivative, 0.5 cos(π d / d_c) + 0.5, of n distances; whole vectors.
template <typename T>
void cut_off(const T* distances, int64_t n, T cutoff, T* values, T* slopes) {
  for (int64_t k = 0; k < n; k += lanes<T>) {
    const auto angle = cosine_and_sine_of_pi<T, Whole<T>>(Whole<T>::load(distances + k) / cutoff);
    Whole<T>::store(values + k, T(0.5) * angle.cosine + T(0.5));
    Whole<T>::store(slopes + k, angle.sine * (T(-0.5 * 3.141592653589793) / cutoff));
  }
}

template <typename T>
void find_neighbours(const SymmetryFunctionsProblem<T>& problem, const Neighbourhood<T>& found, int64_t centre) {
  constexpr int64_t L = lanes<T>;
  const auto edge_at = [&](int64_t k) MLIP_INLINE_LAMBDA { return problem.edge_order ? problem.edge_order[k] : k; };
  const auto element_of = [&](int64_t edge) MLIP_INLINE_LAMBDA { return problem.node_types[problem.neighbours[edge]]; };
  const int64_t begin = problem.first_edge[centre], end = problem.first_edge[centre + 1];
  const int64_t n_elements = problem.n_elements;
  for (int64_t element = 0; element < n_elements; ++element) found.count[element] = 0;
  for (int64_t k = begin; k < end; ++k) ++found.count[element_of(edge_at(k))];
  found.first[0] = 0;
  for (int64_t element = 0; element < n_elements; ++element) {
    found.first[element + 1] = found.first[element] + (found.count[element] + L - 1) / L * L;
    found.count[element] = 0;
  }
  for (int64_t k = begin; k < end; ++k) {
    const int64_t edge = edge_at(k), element = element_of(edge);
    const int64_t place = found.first[element] + found.count[element]++;
    found.edge[place] = edge;
    found.x[place] = problem.vectors[3 * edge];
    found.y[place] = problem.vectors[3 * edge + 1];
    found.z[place] = problem.vectors[3 * edge + 2];
  }
  const auto for_filling = [&](auto&& body) MLIP_INLINE_LAMBDA {
    for (int64_t element = 0; element < n_elements; ++element)
      for (int64_t place = found.first[element] + found.count[element]; place < found.first[element + 1]; ++place)
        body(place);
  };
  for_filling([&](int64_t place) MLIP_INLINE_LAMBDA {
    found.x[place] = problem.radial_cutoff;
    found.y[place] = found.z[place] = T(0);
  });
  for (int64_t place = 0; place < found.first[n_elements]; place += L) {
    const auto x = Whole<T>::load(found.x + place), y = Whole<T>::load(found.y + place);
    const auto z = Whole<T>::load(found.z + place);
    const auto distance = square_root<T, Whole<T>>(x * x + y * y + z * z), inverse = T(1) / distance;
    Whole<T>::store(found.distance + place, distance);
    Whole<T>::store(found.x + place, x * inverse);
    Whole<T>::store(found.y + place, y * inverse);
    Whole<T>::store(found.z + place, z * inverse);
  }
  cut_off(found.distance, found.first[n_elements], problem.radial_cutoff, found.cutoff, found.slope);
  for_filling([&](int64_t place) MLIP_INLINE_LAMBDA { found.cutoff[place] = found.slope[place] = T(0); });

  int64_t near = 0;
  for (int64_t element = 0; element < n_elements; ++element) {
    found.first_near[element] = near;
    for (int64_t k = 0; k < found.count[element]; ++k) {
      const int64_t place = found.first[element] + k;
      if (!(found.distance[place] < problem.angular_cutoff)) continue;
      found.near_place[near] = place;
      found.near_distance[near] = found.distance[place];
      found.near_direction[4 * near] = found.x[place];
      found.near_direction[4 * near + 1] = found.y[place];
      found.near_direction[4 * near + 2] = found.z[place];
      found.near_direction[4 * near + 3] = T(0);
      ++near;
    }
  }
  found.first_near[n_elements] = near;
  for (int64_t k = near; k % L != 0; ++k) found.near_distance[k] = problem.angular_cutoff;
  cut_off(found.near_distance, near, problem.angular_cutoff, found.near_cutoff, found.near_slope);
}

/// Two neighbours and what their functions depend on, side by side.
template <typename T>
struct Pairs {
  int64_t n;  ///< the rest is zero
  int64_t first[lanes<T>], second[lanes<T>];
  Lanes<T> cosine, mean, cutoff;  ///< of the angle; of both distances; product
};

/// body(pairs) over all pairs of near neighbours, the first of element a and the second of element b.
template <typename T, typename Body>
MLIP_INLINE void for_pairs(const Neighbourhood<T>& found, int64_t a, int64_t b, Body&& body) {
  constexpr int64_t L = lanes<T>;
  Pairs<T> pairs;
  T cosine[L], mean[L], cutoff[L];
  const auto flush = [&]() MLIP_INLINE_LAMBDA {
    for (int64_t lane = pairs.n; lane < L; ++lane) cosine[lane] = mean[lane] = cutoff[lane] = T(0);
    pairs.cosine = Whole<T>::load(cosine);
    pairs.mean = Whole<T>::load(mean);
    pairs.cutoff = Whole<T>::load(cutoff);
    body(pairs);
    pairs.n = 0;
  };
  pairs.n = 0;
  for (int64_t i = found.first_near[a]; i < found.first_near[a + 1]; ++i) {
    const T* const u = found.near_direction + 4 * i;
    for (int64_t k = a == b ? i + 1 : found.first_near[b]; k < found.first_near[b + 1]; ++k) {
      const T* const v = found.near_direction + 4 * k;
      pairs.first[pairs.n] = i;
      pairs.second[pairs.n] = k;
      cosine[pairs.n] = u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
      mean[pairs.n] = T(0.5) * (found.near_distance[i] + found.near_distance[k]);
      cutoff[pairs.n] = found.near_cutoff[i] * found.near_cutoff[k];
      if (++pairs.n == L) flush();
    }
  }
  if (pairs.n > 0) flush();
}

template <typename T>
MLIP_INLINE Lanes<T> exp(Lanes<T> x) {
  const auto e = exponential<T, Whole<T>>(x);
  return e.scale + e.scale * e.rest;
}

/// The cosine that angular functions take, and the sine of its angle.
template <typename T>
struct Angles {
  Lanes<T> cosine, sine;
  explicit MLIP_INLINE Angles(Lanes<T> of_vectors)
      : cosine(T(0.95) * of_vectors), sine(square_root<T, Whole<T>>(T(1) - cosine * cosine)) {}

  /// (1 + cos(angle - section)) / 2, kept above zero for the logarithm.
  MLIP_INLINE Lanes<T> base(const SymmetryFunctionsProblem<T>& problem, int64_t section) const {
    const Lanes<T> least = Lanes<T>{} + T(1e-30);
    const Lanes<T> x = T(0.5) + T(0.5) * (cosine * problem.cosines[section] + sine * problem.sines[section]);
    return x < least ? least : x;
  }
};

/// 2 base^ζ
template <typename T>
MLIP_INLINE Lanes<T> power(const SymmetryFunctionsProblem<T>& problem, Lanes<T> base) {
  return T(2) * exp<T>(problem.zeta * logarithm<T, Whole<T>>(base));
}

/// Row of the features of elements a and b, a <= b, in the features of an atom.
template <typename T>
int64_t first_angular(const SymmetryFunctionsProblem<T>& problem, int64_t a, int64_t b) {
  const int64_t pair = a * (2 * problem.n_elements - a - 1) / 2 + b;
  return problem.n_elements * problem.n_radial + pair * problem.n_angular;
}

template <typename T>
void forward(const SymmetryFunctionsProblem<T>& problem, T* features, int64_t begin, int64_t end, T* memory,
             int64_t* indices) {
  constexpr int64_t L = lanes<T>;
  const int64_t n_shifts = problem.n_shifts, n_sections = problem.n_sections, n_angular = problem.n_angular;
  const Neighbourhood<T> found(problem, memory, indices);
  for (int64_t centre = begin; centre < end; ++centre) {
    T* const row = features + centre * problem.n_features;
    for (int64_t k = 0; k < problem.n_features; ++k) row[k] = T(0);
    find_neighbours(problem, found, centre);
    for (int64_t a = 0; a < problem.n_elements; ++a) {
      if (found.count[a] == 0) continue;
      for (int64_t r = 0; r < problem.n_radial; ++r) {
        Lanes<T> sum{};
        for (int64_t place = found.first[a]; place < found.first[a + 1]; place += L) {
          const auto x = Whole<T>::load(found.distance + place) - problem.radial_shifts[r];
          sum += exp<T>(-problem.radial_eta * x * x) * Whole<T>::load(found.cutoff + place);
        }
        Whole<T>::store(found.sums + r * L, T(0.25) * sum);
      }
      sum_all_lanes(found.sums, problem.n_radial, row + a * problem.n_radial);
    }
    for (int64_t a = 0; a < problem.n_elements; ++a)
      for (int64_t b = a; b < problem.n_elements; ++b) {
        const int64_t n_a = found.first_near[a + 1] - found.first_near[a];
        const int64_t n_b = found.first_near[b + 1] - found.first_near[b];
        if (n_a == 0 || n_b == 0 || (a == b && n_a == 1)) continue;
        for (int64_t k = 0; k < n_angular * L; ++k) found.sums[k] = T(0);
        for_pairs(found, a, b, [&](const Pairs<T>& pairs) MLIP_INLINE_LAMBDA {
          for (int64_t r = 0; r < n_shifts; ++r) {
            const auto x = pairs.mean - problem.angular_shifts[r];
            Whole<T>::store(found.values + r * L, exp<T>(-problem.angular_eta * x * x) * pairs.cutoff);
          }
          const Angles<T> angles(pairs.cosine);
          for (int64_t s = 0; s < n_sections; ++s) {
            const auto value = power(problem, angles.base(problem, s));
            for (int64_t r = 0; r < n_shifts; ++r) {
              T* const sum = found.sums + (r * n_sections + s) * L;
              Whole<T>::store(sum, Whole<T>::load(sum) + value * Whole<T>::load(found.values + r * L));
            }
          }
        });
        sum_all_lanes(found.sums, n_angular, row + first_angular(problem, a, b));
      }
  }
}

/// Gradients of the distances, by the radial functions.
template <typename T>
void backward_of_radial(const SymmetryFunctionsProblem<T>& problem, const Neighbourhood<T>& found, const T* row) {
  constexpr int64_t L = lanes<T>;
  for (int64_t a = 0; a < problem.n_elements; ++a)
    for (int64_t place = found.first[a]; place < found.first[a + 1]; place += L) {
      Lanes<T> of_cutoff{}, of_distance{};
      const auto distance = Whole<T>::load(found.distance + place);
      for (int64_t r = 0; r < problem.n_radial; ++r) {
        const auto x = distance - problem.radial_shifts[r];
        const auto weighted = exp<T>(-problem.radial_eta * x * x) * row[a * problem.n_radial + r];
        of_cutoff += weighted;
        of_distance += weighted * x;
      }
      Whole<T>::store(found.of_distance + place,
                      T(0.25) * (of_cutoff * Whole<T>::load(found.slope + place) -
                                 T(2) * problem.radial_eta * of_distance * Whole<T>::load(found.cutoff + place)));
    }
}

/// Gradients of the near ones' directions and distances, by the functions of some pairs.
template <typename T>
MLIP_INLINE void backward_of_pairs(const SymmetryFunctionsProblem<T>& problem, const Neighbourhood<T>& found,
                                   const Pairs<T>& pairs, const T* gradient) {
  constexpr int64_t L = lanes<T>;
  const int64_t n_shifts = problem.n_shifts, n_sections = problem.n_sections;
  for (int64_t r = 0; r < n_shifts; ++r) {
    const auto x = pairs.mean - problem.angular_shifts[r];
    const auto value = exp<T>(-problem.angular_eta * x * x);
    Whole<T>::store(found.values + r * L, value);
    Whole<T>::store(found.slopes + r * L, value * x);
  }
  const Angles<T> angles(pairs.cosine);
  const auto cotangent = angles.cosine / angles.sine;
  Lanes<T> of_cutoff{}, of_mean{}, of_cosine{};
  for (int64_t s = 0; s < n_sections; ++s) {
    const auto base = angles.base(problem, s), value = power(problem, base);
    Lanes<T> by_value{}, by_slope{};
    for (int64_t r = 0; r < n_shifts; ++r) {
      by_value += Whole<T>::load(found.values + r * L) * gradient[r * n_sections + s];
      by_slope += Whole<T>::load(found.slopes + r * L) * gradient[r * n_sections + s];
    }
    of_cutoff += value * by_value;
    of_mean += value * by_slope;
    of_cosine += value / base * (problem.cosines[s] - cotangent * problem.sines[s]) * by_value;
  }
  T cutoffs[L], means[L], cosines[L];
  Whole<T>::store(cutoffs, of_cutoff);
  Whole<T>::store(means, T(-problem.angular_eta) * of_mean * pairs.cutoff);  // of each of both distances
  Whole<T>::store(cosines, T(0.5 * 0.95) * problem.zeta * of_cosine * pairs.cutoff);
  using Direction = Vector<T, 4>;
  for (int64_t lane = 0; lane < pairs.n; ++lane) {
    const int64_t i = pairs.first[lane], k = pairs.second[lane];
    found.of_near_distance[i] += means[lane] + cutoffs[lane] * found.near_cutoff[k] * found.near_slope[i];
    found.of_near_distance[k] += means[lane] + cutoffs[lane] * found.near_cutoff[i] * found.near_slope[k];
    T *const of_u = found.of_near_direction + 4 * i, *const of_v = found.of_near_direction + 4 * k;
    const auto u = Direction::load(found.near_direction + 4 * i), v = Direction::load(found.near_direction + 4 * k);
    Direction::store(of_u, Direction::load(of_u) + v * cosines[lane]);
    Direction::store(of_v, Direction::load(of_v) + u * cosines[lane]);
  }
}

template <typename T>
void backward(const SymmetryFunctionsProblem<T>& problem, const T* feature_gradients, T* vector_gradients,
              int64_t begin, int64_t end, T* memory, int64_t* indices) {
  const int64_t n_elements = problem.n_elements;
  const Neighbourhood<T> found(problem, memory, indices);
  for (int64_t centre = begin; centre < end; ++centre) {
    const T* const row = feature_gradients + centre * problem.n_features;
    find_neighbours(problem, found, centre);
    backward_of_radial(problem, found, row);
    const int64_t n_near = found.n_near(n_elements);
    for (int64_t k = 0; k < n_near; ++k) found.of_near_distance[k] = T(0);
    for (int64_t k = 0; k < 4 * n_near; ++k) found.of_near_direction[k] = T(0);
    for (int64_t a = 0; a < n_elements; ++a)
      for (int64_t b = a; b < n_elements; ++b) {
        const T* const gradient = row + first_angular(problem, a, b);
        for_pairs(found, a, b, [&](const Pairs<T>& pairs) MLIP_INLINE_LAMBDA {
          backward_of_pairs(problem, found, pairs, gradient);
        });
      }
    for (int64_t a = 0; a < n_elements; ++a)
      for (int64_t k = 0; k < found.count[a]; ++k) {
        const int64_t place = found.first[a] + k;
        T* const gradient = vector_gradients + 3 * found.edge[place];
        gradient[0] = found.of_distance[place] * found.x[place];
        gradient[1] = found.of_distance[place] * found.y[place];
        gradient[2] = found.of_distance[place] * found.z[place];
      }
    for (int64_t k = 0; k < n_near; ++k) {
      const T *const u = found.near_direction + 4 * k, *const of_u = found.of_near_direction + 4 * k;
      T* const gradient = vector_gradients + 3 * found.edge[found.near_place[k]];
      const T inverse = T(1) / found.near_distance[k];
      // What turns the direction, and what lengthens the vector.
      const T along = found.of_near_distance[k] - (of_u[0] * u[0] + of_u[1] * u[1] + of_u[2] * u[2]) * inverse;
      for (int64_t c = 0; c < 3; ++c) gradient[c] += of_u[c] * inverse + along * u[c];
    }
  }
}

}  // namespace

extern const SymmetryFunctionsKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _symmetry_functions_float32);
extern const SymmetryFunctionsKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _symmetry_functions_float64);
const SymmetryFunctionsKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _symmetry_functions_float32) = {
    forward<float>, backward<float>};
const SymmetryFunctionsKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _symmetry_functions_float64) = {
    forward<double>, backward<double>};

}  // namespace mlip
