// The loops of `mlip::edge_perceptron`, compiled once per instruction set: see simd.h for what may not be used here.
#include "operators/edge_perceptron/edge_perceptron_kernels.h"
#include "operators/simd.h"
#include "operators/vector_functions.h"

namespace mlip {
namespace {

template <typename T>
void gather(const PerceptronProblem<T>& problem, const PerceptronBlock<T>& block, T* hidden) {
  const int64_t width = 2 * problem.n_channels;
  for (int64_t e = 0; e < block.n; ++e, hidden += width) {
    const T* const own = problem.of_centres + block.centres[e] * width;
    const T* const other = problem.of_neighbours + block.neighbours[e] * width;
    for_channels<T, true>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      V::store(hidden + u, V::load(own + u) + V::load(other + u));
    });
  }
}

template <typename T>
void activate(const PerceptronProblem<T>& problem, int64_t n, T* hidden, PerceptronRows<T> slopes) {
  const int64_t width = 2 * problem.n_channels;
  for (int64_t e = 0; e < n; ++e, hidden += width, slopes.data += slopes.stride)
    for_channels<T, false>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const auto x = V::load(hidden + u), s = sigmoid<T, V>(x);
      V::store(hidden + u, x * s);
      if (slopes.data != nullptr) V::store(slopes.data + u, slope_of_silu<T>(x, s));
    });
}

template <typename T>
void activate_backward(const PerceptronProblem<T>& problem, const PerceptronBlock<T>& block,
                       PerceptronRows<const T> slopes, T* of_hidden, T* of_centres, T* of_neighbours) {
  const int64_t width = 2 * problem.n_channels;
  for (int64_t e = 0; e < block.n; ++e, of_hidden += width, slopes.data += slopes.stride) {
    if (of_centres == nullptr) {
      for_channels<T, true>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
        using V = decltype(vector);
        V::store(of_hidden + u, V::load(of_hidden + u) * V::load(slopes.data + u));
      });
      continue;
    }
    T* const own = of_centres + block.centres[e] * width;
    T* const other = of_neighbours + block.neighbours[e] * width;
    for_channels<T, true>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const auto gradient = V::load(of_hidden + u) * V::load(slopes.data + u);
      V::store(of_hidden + u, gradient);
      V::store(own + u, V::load(own + u) + gradient);
      V::store(other + u, V::load(other + u) + gradient);
    });
  }
}

/// Σ_k radial[k] matrix[k][u] of an edge.
template <typename T, typename V>
MLIP_INLINE typename V::type radial_sum(const PerceptronProblem<T>& problem, const T* radial, int64_t u) {
  typename V::type sum{};
  for (int64_t k = 0; k < problem.n_radial; ++k)
    sum += V::load(problem.radial_matrix + k * problem.n_channels + u) * radial[k];
  return sum;
}

template <typename T, bool to_atoms>
MLIP_INLINE void gate_edges(const PerceptronProblem<T>& problem, const PerceptronBlock<T>& block,
                            const T* values_and_gates, T* results, PerceptronRows<T> slopes) {
  const int64_t n_channels = problem.n_channels;
  for (int64_t e = 0; e < block.n; ++e, values_and_gates += 2 * n_channels, slopes.data += slopes.stride) {
    const T* const radial = block.radial + e * problem.n_radial;
    const T* const edge = block.edges + e * n_channels;
    T* const result = results + (to_atoms ? block.centres[e] : e) * n_channels;
    for_channels<T, false>(n_channels, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const auto value = V::load(values_and_gates + u) + V::load(problem.biases + u);
      const auto gate = V::load(values_and_gates + n_channels + u) + V::load(problem.biases + n_channels + u);
      auto factor = radial_sum<T, V>(problem, radial, u);
      auto slope_of_factor = typename V::type{} + T(1);
      if constexpr (to_atoms) {
        const auto s = sigmoid<T, V>(factor);
        slope_of_factor = slope_of_silu<T>(factor, s);
        factor *= s;
      }
      const auto s = sigmoid<T, V>(value), g = sigmoid<T, V>(gate);
      const auto gated = value * s * g, product = gated * factor;
      V::store(result + u, V::load((to_atoms ? result : edge) + u) + product);
      if (slopes.data != nullptr) {
        V::store(slopes.data + u, slope_of_silu<T>(value, s) * (g * factor));
        V::store(slopes.data + n_channels + u, product * (T(1) - g));
        V::store(slopes.data + 2 * n_channels + u, gated * slope_of_factor);
      }
    });
  }
}

template <typename T>
void gate(const PerceptronProblem<T>& problem, const PerceptronBlock<T>& block, const T* values_and_gates, T* results,
          PerceptronRows<T> slopes) {
  if (problem.to_atoms)
    gate_edges<T, true>(problem, block, values_and_gates, results, slopes);
  else
    gate_edges<T, false>(problem, block, values_and_gates, results, slopes);
}

/// Radial functions whose gradients are summed at a time, in registers.
constexpr int radial_sums = 4;

template <typename T>
void gate_backward(const PerceptronProblem<T>& problem, const PerceptronBlock<T>& block, PerceptronRows<const T> slopes,
                   const T* of_results, T* of_values_and_gates, T* of_radial) {
  using Sums = typename Vector<T, lanes<T>>::type;
  const int64_t n_channels = problem.n_channels, n_radial = problem.n_radial;
  for (int64_t e = 0; e < block.n; ++e, of_values_and_gates += 2 * n_channels, slopes.data += slopes.stride) {
    const T* const of_result = of_results + (problem.to_atoms ? block.centres[e] : e) * n_channels;
    for_channels<T, false>(n_channels, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const auto gradient = V::load(of_result + u);
      V::store(of_values_and_gates + u, gradient * V::load(slopes.data + u));
      V::store(of_values_and_gates + n_channels + u, gradient * V::load(slopes.data + n_channels + u));
    });
    for (int64_t first = 0; first < n_radial; first += radial_sums) {
      const int64_t n = n_radial - first < radial_sums ? n_radial - first : radial_sums;
      const T* rows[radial_sums];  // the first row stands for those that are missing
      for (int64_t k = 0; k < radial_sums; ++k) rows[k] = problem.radial_matrix + (k < n ? first + k : 0) * n_channels;
      Sums sums[radial_sums] = {};
      for_channels<T, false>(n_channels, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
        using V = decltype(vector);
        const auto of_factor = V::load(of_result + u) * V::load(slopes.data + 2 * n_channels + u);
        for (int k = 0; k < radial_sums; ++k) V::add_to(sums[k], V::load(rows[k] + u) * of_factor);
      });
      T partial[radial_sums * lanes<T>], found[radial_sums];
      for (int k = 0; k < radial_sums; ++k) Vector<T, lanes<T>>::store(partial + k * lanes<T>, sums[k]);
      sum_all_lanes(partial, radial_sums, found);
      for (int64_t k = 0; k < n; ++k) of_radial[e * n_radial + first + k] = found[k];
    }
  }
}

}  // namespace

extern const EdgePerceptronKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _edge_perceptron_float32);
extern const EdgePerceptronKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _edge_perceptron_float64);
const EdgePerceptronKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _edge_perceptron_float32) = {
    gather<float>, activate<float>, activate_backward<float>, gate<float>, gate_backward<float>};
const EdgePerceptronKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _edge_perceptron_float64) = {
    gather<double>, activate<double>, activate_backward<double>, gate<double>, gate_backward<double>};

}  // namespace mlip
