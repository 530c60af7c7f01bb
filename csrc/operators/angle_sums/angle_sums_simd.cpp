// The loops of `mlip::angle_sums`, compiled once per instruction set: see simd.h for what may not be used here.
//
// A vector holds edges e of a centre, side by side, and meets one edge e' of the centre after the other. What vectors
// read is therefore turned around first, so that a function's values of neighbouring edges follow one another.
#include "operators/angle_sums/angle_sums_kernels.h"
#include "operators/simd.h"

namespace mlip {
namespace {

/// to[k][e] = from[e][k] for n edges; zero for those that fill the last vector.
template <typename T>
MLIP_INLINE void turn(const T* from, int64_t n, int64_t width, int64_t room, T* to) {
  for (int64_t k = 0; k < width; ++k) {
    for (int64_t e = 0; e < n; ++e) to[k * room + e] = from[e * width + k];
    for (int64_t e = n; e < room; ++e) to[k * room + e] = T(0);
  }
}

/// The way back.
template <typename T>
MLIP_INLINE void turn_back(const T* from, int64_t n, int64_t width, int64_t room, T* to) {
  for (int64_t e = 0; e < n; ++e)
    for (int64_t k = 0; k < width; ++k) to[e * width + k] = from[k * room + e];
}

/// The edges of one centre: positions in memory, and how many vectors hold them.
template <typename T>
struct Centre {
  int64_t first, n, room;
  const T* directions;  ///< of the first edge

  MLIP_INLINE Centre(const AngleSumsProblem<T>& problem, int64_t centre)
      : first(problem.first[centre]),
        n(problem.first[centre + 1] - first),
        room((n + lanes<T> - 1) / lanes<T> * lanes<T>),
        directions(problem.directions + 3 * first) {}
};

/// The cosines of the angles between some edges and the edge `other`.
template <typename T>
struct Cosines {
  using V = Vector<T, lanes<T>>;
  using Values = typename V::type;
  Values clamped;   ///< as M3GNet does
  Values is_angle;  ///< 0 for the edge with itself, otherwise 1
  Values inside;    ///< 0 where the cosine was clamped, otherwise 1

  /// @param axes [3][room], the directions of the vector's edges
  /// @param begin the first of these edges
  MLIP_INLINE Cosines(const T* axes, const Centre<T>& centre, int64_t begin, int64_t other) {
    const T* const u = centre.directions + 3 * other;
    const Values zero{}, one = zero + T(1);
    const Values cosine = V::load(axes + begin) * u[0] + V::load(axes + centre.room + begin) * u[1] +
                          V::load(axes + 2 * centre.room + begin) * u[2];
    const Values high = zero + T(largest_cosine), low = -high;
    clamped = cosine < low ? low : cosine;
    clamped = clamped > high ? high : clamped;
    inside = clamped == cosine ? one : zero;
    is_angle = one;
    const int64_t lane = other - begin;
    if (lane >= 0 && lane < lanes<T>) is_angle[lane] = T(0);
  }
};

/// Factors of the recurrence P_(l+1) = a_l x P_l - b_l P_(l-1).
template <typename T>
struct Recurrence {
  T a[most_polynomials], b[most_polynomials];

  MLIP_INLINE Recurrence() {
    for (int l = 0; l < most_polynomials; ++l) {
      a[l] = T(2 * l + 1) / T(l + 1);
      b[l] = T(l) / T(l + 1);
    }
  }

  template <typename Values>
  MLIP_INLINE Values next(int64_t l, Values x, Values polynomial, Values before) const {
    return a[l] * x * polynomial - b[l] * before;
  }
};

template <typename T>
void forward(const AngleSumsProblem<T>& problem, int64_t begin, int64_t end, T* sums, T* scratch) {
  using V = Vector<T, lanes<T>>;
  using Values = typename V::type;
  const int64_t width = problem.n_functions(), repeats = problem.repeats;
  const Recurrence<T> recurrence;
  for (int64_t i = begin; i < end; ++i) {
    const Centre<T> centre(problem, i);
    T* const axes = scratch;
    T* const found = axes + 3 * centre.room;
    turn(centre.directions, centre.n, 3, centre.room, axes);
    for (int64_t k = 0; k < width * centre.room; ++k) found[k] = T(0);
    for (int64_t e = 0; e < centre.room; e += lanes<T>)
      for (int64_t other = 0; other < centre.n; ++other) {
        const Cosines<T> cosines(axes, centre, e, other);
        const T* term = problem.terms + (centre.first + other) * width;
        T* sum = found + e;
        Values before{}, polynomial = cosines.is_angle;
        for (int64_t l = 0; l < problem.n_polynomials; ++l) {
          for (int64_t k = 0; k < repeats; ++k, ++term, sum += centre.room)
            V::store(sum, V::load(sum) + polynomial * *term);
          const Values next = recurrence.next(l, cosines.clamped, polynomial, before);
          before = polynomial;
          polynomial = next;
        }
      }
    turn_back(found, centre.n, width, centre.room, sums + centre.first * width);
  }
}

template <typename T>
void backward(const AngleSumsProblem<T>& problem, int64_t begin, int64_t end, const T* of_sums, T* of_directions,
              T* of_terms, T* scratch) {
  using V = Vector<T, lanes<T>>;
  using Values = typename V::type;
  const int64_t width = problem.n_functions(), repeats = problem.repeats;
  const Recurrence<T> recurrence;
  for (int64_t i = begin; i < end; ++i) {
    const Centre<T> centre(problem, i);
    const int64_t room = centre.room;
    T* const axes = scratch;
    T* const of_axes = axes + 3 * room;
    T* const terms = of_axes + 3 * room;
    T* const gradients = terms + width * room;
    T* const found = gradients + width * room;
    turn(centre.directions, centre.n, 3, room, axes);
    turn(problem.terms + centre.first * width, centre.n, width, room, terms);
    turn(of_sums + centre.first * width, centre.n, width, room, gradients);
    for (int64_t k = 0; k < width * room; ++k) found[k] = T(0);
    for (int64_t e = 0; e < room; e += lanes<T>) {
      Values x{}, y{}, z{};
      for (int64_t other = 0; other < centre.n; ++other) {
        const Cosines<T> cosines(axes, centre, e, other);
        const T* term = problem.terms + (centre.first + other) * width;
        const T* gradient = of_sums + (centre.first + other) * width;
        int64_t place = e;
        // P_l and its derivative, by P'_(l+1) = P'_(l-1) + (2l + 1) P_l
        Values before{}, polynomial = cosines.is_angle, slope_before{}, slope{}, of_cosine{};
        for (int64_t l = 0; l < problem.n_polynomials; ++l) {
          Values products{};
          for (int64_t k = 0; k < repeats; ++k, ++term, ++gradient, place += room) {
            V::store(found + place, V::load(found + place) + polynomial * *gradient);
            products += V::load(gradients + place) * *term + V::load(terms + place) * *gradient;
          }
          of_cosine += products * slope;
          const Values next = recurrence.next(l, cosines.clamped, polynomial, before);
          const Values next_slope = slope_before + T(2 * l + 1) * polynomial;
          before = polynomial;
          polynomial = next;
          slope_before = slope;
          slope = next_slope;
        }
        of_cosine *= cosines.inside;
        const T* const u = centre.directions + 3 * other;
        x += of_cosine * u[0];
        y += of_cosine * u[1];
        z += of_cosine * u[2];
      }
      V::store(of_axes + e, x);
      V::store(of_axes + room + e, y);
      V::store(of_axes + 2 * room + e, z);
    }
    turn_back(of_axes, centre.n, 3, room, of_directions + 3 * centre.first);
    turn_back(found, centre.n, width, room, of_terms + centre.first * width);
  }
}

}  // namespace

#define MLIP_ANGLE_SUMS_KERNELS(type, name)                                                                 \
  extern const AngleSumsKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _angle_sums_##name);           \
  const AngleSumsKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _angle_sums_##name) = {forward<type>, \
                                                                                             backward<type>};
MLIP_ANGLE_SUMS_KERNELS(float, float32)
MLIP_ANGLE_SUMS_KERNELS(double, float64)

}  // namespace mlip
