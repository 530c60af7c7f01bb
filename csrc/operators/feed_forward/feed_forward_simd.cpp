// The loops of `mlip::feed_forward`, compiled once per instruction set: see simd.h for what may not be used here.
#include "operators/feed_forward/feed_forward_kernels.h"
#include "operators/simd.h"
#include "operators/vector_functions.h"

namespace mlip {
namespace {

/// Σ_u term(u, vector type) of a row.
template <typename T, typename Term>
MLIP_INLINE T sum_of_row(int64_t width, Term&& term) {
  typename Vector<T, lanes<T>>::type sum{};
  for_channels<T, false>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
    using V = decltype(vector);
    V::add_to(sum, term(u, vector));
  });
  return sum_of_lanes<T>(sum);
}

template <typename T>
void normalise(Norm norm, T epsilon, int64_t n, int64_t width, const T* x, T* normed, T* inverse) {
  for (int64_t row = 0; row < n; ++row, x += width, normed += width) {
    T mean = 0;
    if (norm == Norm::layer)
      mean = sum_of_row<T>(width,
                           [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA { return decltype(vector)::load(x + u); }) /
             T(width);
    const T squares = sum_of_row<T>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      const auto difference = decltype(vector)::load(x + u) - mean;
      return difference * difference;
    });
    const T variance = squares / T(width) + epsilon;
    const T factor = T(1) / (sizeof(T) == sizeof(float) ? T(__builtin_sqrtf(variance)) : T(__builtin_sqrt(variance)));
    inverse[row] = factor;
    for_channels<T, false>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      V::store(normed + u, (V::load(x + u) - mean) * factor);
    });
  }
}

template <typename T>
void normalise_backward(Norm norm, int64_t n, int64_t width, const T* normed, const T* inverse, T* gradient) {
  for (int64_t row = 0; row < n; ++row, normed += width, gradient += width) {
    T mean = 0;
    if (norm == Norm::layer)
      mean = sum_of_row<T>(width, [&](int64_t u, auto vector)
                                      MLIP_INLINE_LAMBDA { return decltype(vector)::load(gradient + u); }) /
             T(width);
    const T along = sum_of_row<T>(width,
                                  [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
                                    using V = decltype(vector);
                                    return V::load(gradient + u) * V::load(normed + u);
                                  }) /
                    T(width);
    const T factor = inverse[row];
    for_channels<T, false>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      V::store(gradient + u, (V::load(gradient + u) - mean - V::load(normed + u) * along) * factor);
    });
  }
}

template <typename T>
void activate(Activation activation, int64_t n, int64_t n_hidden, const T* sums, const T* bias, T* hidden, T* slopes) {
  const bool gated = activation == Activation::glu;
  const int64_t width = gated ? 2 * n_hidden : n_hidden, step = slopes == nullptr ? 0 : width;
  for (int64_t row = 0; row < n; ++row, sums += width, hidden += n_hidden, slopes += step)
    for_channels<T, false>(n_hidden, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const auto value = V::load(sums + u) + V::load(bias + u);
      if (gated) {
        const auto s = sigmoid<T, V>(V::load(sums + n_hidden + u) + V::load(bias + n_hidden + u));
        V::store(hidden + u, value * s);
        if (slopes == nullptr) return;
        V::store(slopes + u, s);
        V::store(slopes + n_hidden + u, value * s * (T(1) - s));
      } else {
        const auto s = sigmoid<T, V>(value);
        V::store(hidden + u, value * s);
        if (slopes != nullptr) V::store(slopes + u, slope_of_silu<T>(value, s));
      }
    });
}

template <typename T>
void activate_backward(Activation activation, int64_t n, int64_t n_hidden, const T* slopes, const T* of_hidden,
                       T* of_sums) {
  const bool gated = activation == Activation::glu;
  const int64_t width = gated ? 2 * n_hidden : n_hidden;
  for (int64_t row = 0; row < n; ++row, slopes += width, of_hidden += n_hidden, of_sums += width)
    for_channels<T, false>(n_hidden, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const auto gradient = V::load(of_hidden + u);
      V::store(of_sums + u, gradient * V::load(slopes + u));
      if (gated) V::store(of_sums + n_hidden + u, gradient * V::load(slopes + n_hidden + u));
    });
}

}  // namespace

#define MLIP_FEED_FORWARD_KERNELS(type, name)                                                         \
  extern const FeedForwardKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _feed_forward_##name); \
  const FeedForwardKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _feed_forward_##name) = {     \
      normalise<type>, normalise_backward<type>, activate<type>, activate_backward<type>};
MLIP_FEED_FORWARD_KERNELS(float, float32)
MLIP_FEED_FORWARD_KERNELS(double, float64)

}  // namespace mlip
