// The loops of `mlip::so2_convolution`, compiled once per instruction set: see simd.h for what may not be used here.
#include "operators/simd.h"
#include "operators/so2_convolution/so2_convolution_kernels.h"
#include "operators/vector_functions.h"

namespace mlip {
namespace {

template <typename T>
void rotate(const MessageRows& rows, const EdgeBlock<T>& block, const int64_t* nodes, const T* x, int64_t channels,
            bool enveloped, BlockRows<T> y, int64_t first) {
  for (int64_t e = 0; e < block.n; ++e) {
    const T* const rotation = block.rotations + block.edges[e] * rows.n_rows * rows.n_components;
    const T factor = enveloped ? block.envelope[block.edges[e]] : T(1);
    const T* from = x + nodes[e] * rows.n_components * channels;
    for (int64_t l = 0; l <= rows.l_max; from += (2 * l + 1) * channels, ++l)
      for (int64_t r = rows.first[l]; r < rows.first[l + 1]; ++r) {
        const int64_t row = rows.of_degree[r];
        const T* const coefficients = rotation + row * rows.n_components + l * l;
        T* const to = y.data + e * y.stride + row * y.width + first;
        for_channels<T, true>(channels, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
          using V = decltype(vector);
          typename V::type sum{};
          for (int64_t k = 0; k < 2 * l + 1; ++k) sum += V::load(from + k * channels + u) * (factor * coefficients[k]);
          V::store(to + u, sum);
        });
      }
  }
}

template <typename T>
void rotate_back(const MessageRows& rows, const EdgeBlock<T>& block, const int64_t* nodes, T* x, int64_t channels,
                 bool enveloped, BlockRows<T> y, int64_t first) {
  for (int64_t e = 0; e < block.n; ++e) {
    const T* const rotation = block.rotations + block.edges[e] * rows.n_rows * rows.n_components;
    const T factor = enveloped ? block.envelope[block.edges[e]] : T(1);
    const T* const from = y.data + e * y.stride + first;
    T* to = x + nodes[e] * rows.n_components * channels;
    for (int64_t l = 0; l <= rows.l_max; to += (2 * l + 1) * channels, ++l)
      for (int64_t k = 0; k < 2 * l + 1; ++k)
        for_channels<T, true>(channels, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
          using V = decltype(vector);
          auto sum = V::load(to + k * channels + u);
          for (int64_t r = rows.first[l]; r < rows.first[l + 1]; ++r) {
            const int64_t row = rows.of_degree[r];
            sum += V::load(from + row * y.width + u) * (factor * rotation[row * rows.n_components + l * l + k]);
          }
          V::store(to + k * channels + u, sum);
        });
  }
}

template <typename T>
void rotation_gradient(const MessageRows& rows, const EdgeBlock<T>& block, const int64_t* nodes, const T* x,
                       int64_t channels, bool enveloped, BlockRows<T> y, int64_t first, T* of_rotations,
                       T* of_envelope) {
  constexpr int64_t L = lanes<T>;
  for (int64_t e = 0; e < block.n; ++e) {
    const int64_t at = block.edges[e] * rows.n_rows * rows.n_components;
    const T factor = enveloped ? block.envelope[block.edges[e]] : T(1);
    const T* from = x + nodes[e] * rows.n_components * channels;
    T of_factor = 0;
    for (int64_t l = 0; l <= rows.l_max; from += (2 * l + 1) * channels, ++l)
      for (int64_t r = rows.first[l]; r < rows.first[l + 1]; ++r) {
        const int64_t row = rows.of_degree[r], n_k = 2 * l + 1;
        const T* const values = y.data + e * y.stride + row * y.width + first;
        T partial[(2 * largest_degree + 1) * L], sums[2 * largest_degree + 1];
        for (int64_t k = 0; k < n_k; ++k) {
          typename Vector<T, L>::type sum{};
          for_channels<T, false>(channels, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
            using V = decltype(vector);
            V::add_to(sum, V::load(values + u) * V::load(from + k * channels + u));
          });
          Vector<T, L>::store(partial + k * L, sum);
        }
        sum_all_lanes(partial, n_k, sums);
        const int64_t first_k = at + row * rows.n_components + l * l;
        for (int64_t k = 0; k < n_k; ++k) {
          of_rotations[first_k + k] += factor * sums[k];
          of_factor += block.rotations[first_k + k] * sums[k];
        }
      }
    if (of_envelope != nullptr) of_envelope[block.edges[e]] += of_factor;
  }
}

/// body(pair, row) over the rows of all pairs.
template <typename Body>
MLIP_INLINE void for_pairs(const MessageRows& rows, Body&& body) {
  for (int64_t pair = 0; pair < rows.n_pairs; ++pair) {
    body(pair, rows.plus[pair]);
    if (rows.minus[pair] != rows.plus[pair]) body(pair, rows.minus[pair]);
  }
}

template <typename T>
void scale(const MessageRows& rows, int64_t n, BlockRows<T> x, const T* scalars, BlockRows<T> y) {
  for (int64_t e = 0; e < n; ++e)
    for_pairs(rows, [&](int64_t pair, int64_t row) MLIP_INLINE_LAMBDA {
      const T* const factors = scalars + (e * rows.n_pairs + pair) * x.width;
      const T* const from = x.data + e * x.stride + row * x.width;
      T* const to = y.data + e * y.stride + row * y.width;
      for_channels<T, false>(x.width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
        using V = decltype(vector);
        V::store(to + u, V::load(from + u) * V::load(factors + u));
      });
    });
}

template <typename T>
void scale_backward(const MessageRows& rows, int64_t n, BlockRows<T> x, const T* scalars, BlockRows<T> gradient,
                    T* of_scalars) {
  for (int64_t e = 0; e < n; ++e)
    for (int64_t pair = 0; pair < rows.n_pairs; ++pair) {
      const int64_t at = (e * rows.n_pairs + pair) * x.width;
      const int64_t both[] = {rows.plus[pair], rows.minus[pair]};
      const int n_both = both[0] == both[1] ? 1 : 2;
      for_channels<T, false>(x.width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
        using V = decltype(vector);
        const auto factor = V::load(scalars + at + u);
        typename V::type sum{};
        for (int k = 0; k < n_both; ++k) {
          T* const of_y = gradient.data + e * gradient.stride + both[k] * gradient.width + u;
          sum += V::load(of_y) * V::load(x.data + e * x.stride + both[k] * x.width + u);
          V::store(of_y, V::load(of_y) * factor);
        }
        V::store(of_scalars + at + u, sum);
      });
    }
}

template <typename T>
void sum_signs(const MessageRows& rows, int64_t n, BlockRows<T> x, T* sums) {
  for (int64_t e = 0; e < n; ++e)
    for (int64_t pair = rows.l_max + 1; pair < rows.n_pairs; ++pair, sums += x.width) {
      const T* const plus = x.data + e * x.stride + rows.plus[pair] * x.width;
      const T* const minus = x.data + e * x.stride + rows.minus[pair] * x.width;
      for_channels<T, false>(x.width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
        using V = decltype(vector);
        V::store(sums + u, V::load(plus + u) + V::load(minus + u));
      });
    }
}

template <typename T>
void gate(const MessageRows& rows, int64_t n, BlockRows<T> x, BlockRows<T> y) {
  for (int64_t e = 0; e < n; ++e) {
    const T* const from = x.data + e * x.stride;
    T* const to = y.data + e * y.stride;
    for (int64_t l = 0; l <= rows.l_max; ++l) {
      const T* const gates = l == 0 ? from : from - (rows.l_max + 1 - l) * x.width;
      for_channels<T, false>(x.width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
        using V = decltype(vector);
        const auto factor = sigmoid<T, V>(V::load(gates + u));
        for (int64_t r = rows.first[l]; r < rows.first[l + 1]; ++r) {
          const int64_t row = rows.of_degree[r];
          V::store(to + row * y.width + u, V::load(from + row * x.width + u) * factor);
        }
      });
    }
  }
}

template <typename T>
void gate_backward(const MessageRows& rows, int64_t n, BlockRows<T> x, BlockRows<T> gradient) {
  for (int64_t e = 0; e < n; ++e) {
    T* const values = x.data + e * x.stride;
    const T* const of_y = gradient.data + e * gradient.stride;
    for (int64_t l = 0; l <= rows.l_max; ++l) {
      T* const gates = l == 0 ? values : values - (rows.l_max + 1 - l) * x.width;
      for_channels<T, false>(x.width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
        using V = decltype(vector);
        const auto factor = sigmoid<T, V>(V::load(gates + u));
        typename V::type of_factor{};
        for (int64_t r = rows.first[l]; r < rows.first[l + 1]; ++r) {
          const int64_t row = rows.of_degree[r];
          const auto slope = V::load(of_y + row * gradient.width + u);
          T* const value = values + row * x.width + u;
          of_factor += slope * V::load(value);
          V::store(value, slope * factor);
        }
        const auto of_gate = of_factor * factor * (T(1) - factor);
        V::store(gates + u, l == 0 ? V::load(gates + u) + of_gate : of_gate);  // at l = 0 value and gate are one
      });
    }
  }
}

template <typename T>
void normalize(int64_t n, int64_t width, T epsilon, const T* weight, const T* bias, T* x, T* inverse, T* y) {
  constexpr int64_t L = lanes<T>;
  for (int64_t e = 0; e < n; ++e, x += width, y += width) {
    typename Vector<T, L>::type sum{}, square{};
    for_channels<T, false>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      V::add_to(sum, V::load(x + u));
    });
    const T mean = sum_of_lanes<T>(sum) / T(width);
    for_channels<T, false>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const auto difference = V::load(x + u) - mean;
      V::add_to(square, difference * difference);
    });
    inverse[e] = T(1) / T(__builtin_sqrt(sum_of_lanes<T>(square) / T(width) + epsilon));
    for_channels<T, false>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const auto normalized = (V::load(x + u) - mean) * inverse[e];
      const auto z = normalized * V::load(weight + u) + V::load(bias + u);
      V::store(x + u, normalized);
      V::store(y + u, z * sigmoid<T, V>(z));
    });
  }
}

template <typename T>
void normalize_backward(int64_t n, int64_t width, const T* weight, const T* bias, const T* normalized, const T* inverse,
                        T* gradient) {
  constexpr int64_t L = lanes<T>;
  for (int64_t e = 0; e < n; ++e, normalized += width, gradient += width) {
    typename Vector<T, L>::type sum{}, projection{};
    for_channels<T, false>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const auto x = V::load(normalized + u), factor = V::load(weight + u);
      const auto z = x * factor + V::load(bias + u);
      const auto s = sigmoid<T, V>(z);
      const auto of_x = V::load(gradient + u) * (s * (T(1) + z * (T(1) - s))) * factor;
      V::add_to(sum, of_x);
      V::add_to(projection, of_x * x);
      V::store(gradient + u, of_x);
    });
    const T mean = sum_of_lanes<T>(sum) / T(width), along = sum_of_lanes<T>(projection) / T(width);
    for_channels<T, false>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      V::store(gradient + u, (V::load(gradient + u) - mean - V::load(normalized + u) * along) * inverse[e]);
    });
  }
}

}  // namespace

#define MLIP_SO2_KERNELS(type, name)                                                                        \
  extern const SO2ConvolutionKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _so2_convolution_##name); \
  const SO2ConvolutionKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _so2_convolution_##name) = {     \
      rotate<type>,    rotate_back<type>, rotation_gradient<type>, scale<type>,     scale_backward<type>,   \
      sum_signs<type>, gate<type>,        gate_backward<type>,     normalize<type>, normalize_backward<type>};
MLIP_SO2_KERNELS(float, float32)
MLIP_SO2_KERNELS(double, float64)

}  // namespace mlip
