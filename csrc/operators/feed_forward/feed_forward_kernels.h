// CPU kernels of the operator `mlip::feed_forward`, free of torch so that they compile in seconds: all that stands
// between its matrix products, for a block of rows. feed_forward.cpp has the formula.
//
// feed_forward_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

namespace mlip {

enum class Norm { none, root_mean_square, layer };
enum class Activation { silu, glu };

/// The kernels of one instruction set for one type. Rows follow one another.
template <typename T>
struct FeedForwardKernels {
  /// normed = x or (x - mean), over its standard deviation, for n rows [n, width]; and 1 / that deviation [n].
  void (*normalise)(Norm norm, T epsilon, std::int64_t n, std::int64_t width, const T* x, T* normed, T* inverse);
  /// From the gradient of `normed` to that of x, in place.
  void (*normalise_backward)(Norm norm, std::int64_t n, std::int64_t width, const T* normed, const T* inverse,
                             T* gradient);
  /// hidden [n, n_hidden] = the activation of sums + bias, which are [n, n_hidden], or [n, 2 n_hidden] for glu: values,
  /// then gates. Slopes of the same shape, where they are not null.
  void (*activate)(Activation activation, std::int64_t n, std::int64_t n_hidden, const T* sums, const T* bias,
                   T* hidden, T* slopes);
  /// From the gradient of `hidden` to that of the sums.
  void (*activate_backward)(Activation activation, std::int64_t n, std::int64_t n_hidden, const T* slopes,
                            const T* of_hidden, T* of_sums);
};

}  // namespace mlip
