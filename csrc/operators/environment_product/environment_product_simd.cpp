// The loops of `mlip::environment_product`, compiled once per instruction set: see simd.h for what may not be used
// here.
#include "operators/environment_product/environment_product_kernels.h"
#include "operators/simd.h"

namespace mlip {
namespace {

/// Where the vectors of some neighbouring channels of one centre are kept. A place holds a whole vector, also where
/// the remainder of the channels is done one by one.
template <typename T>
struct Scratch {
  T *environment, *environment_gradient, *matrix, *matrix_gradient, *x, *y, *harmonic_sums;

  MLIP_INLINE Scratch(const EnvironmentProblem<T>& problem, T* memory) {
    constexpr int64_t L = lanes<T>;
    environment = memory;
    environment_gradient = environment + problem.n2 * L;
    matrix = environment_gradient + problem.n2 * L;
    matrix_gradient = matrix + problem.n_entries * L;
    x = matrix_gradient + problem.n_entries * L;            // [n1][tile]
    y = x + environment_tile * problem.n1 * L;              // [n3][tile]
    harmonic_sums = y + environment_tile * problem.n3 * L;  // [most_edges][n2]
  }
};

template <typename T>
MLIP_INLINE int64_t edge_at(const EnvironmentProblem<T>& problem, int64_t position) {
  return problem.edge_order ? problem.edge_order[position] : position;
}

/// body(first position of a tile, its number of edges as a constant) over the edges of a centre.
template <int N>
struct Count {
  static constexpr int value = N;
};
template <typename Body>
MLIP_INLINE void for_tiles(int64_t begin, int64_t end, Body&& body) {
  constexpr int tile = environment_tile;
  for (; begin + tile <= end; begin += tile) body(begin, Count<tile>{});
  for (; begin < end; ++begin) body(begin, Count<1>{});
}

/// env[m2] = Σ_edges Y[m2] w[block of m2], and M from it.
template <typename T, typename V>
MLIP_INLINE void make_matrix(const EnvironmentProblem<T>& problem, const Scratch<T>& scratch, int64_t centre, int64_t u,
                             V) {
  constexpr int64_t L = lanes<T>;
  for (int64_t m = 0; m < problem.n2; ++m) V::store(scratch.environment + m * L, typename V::type{});
  for_tiles(problem.first_edge[centre], problem.first_edge[centre + 1],
            [&](int64_t position, auto count) MLIP_INLINE_LAMBDA {
              constexpr int n = decltype(count)::value;
              const T *weights[n], *harmonics[n];
              for (int t = 0; t < n; ++t) {
                const int64_t edge = edge_at(problem, position + t);
                weights[t] = problem.weights + edge * problem.n_weight_blocks * problem.channels + u;
                harmonics[t] = problem.harmonics + edge * problem.n2;
              }
              for (int64_t m = 0; m < problem.n2; ++m) {
                const int64_t at = problem.weight_blocks[m] * problem.channels;
                auto sum = V::load(scratch.environment + m * L);
                for (int t = 0; t < n; ++t) sum += V::load(weights[t] + at) * harmonics[t][m];
                V::store(scratch.environment + m * L, sum);
              }
            });
  for (int64_t k = 0; k < problem.n_entries; ++k) {
    typename V::type sum{};
    for (int64_t term = problem.first_term[k]; term < problem.first_term[k + 1]; ++term)
      sum += V::load(problem.coefficients + term * problem.channels + u) *
             V::load(scratch.environment + problem.term_environment[term] * L);
    V::store(scratch.matrix + k * L, sum);
  }
}

/// The features of a tile of edges, x[m1][tile].
template <typename T, typename V, int n>
MLIP_INLINE void load_features(const EnvironmentProblem<T>& problem, const int64_t (&edges)[n], int64_t u, T* x, V) {
  constexpr int64_t L = lanes<T>;
  const bool weighted = problem.n_feature_blocks > 0;
  const int64_t row = (weighted ? problem.n_feature_blocks : problem.n1) * problem.channels;
  for (int64_t m = 0; m < problem.n1; ++m) {
    const int64_t at = (weighted ? problem.feature_blocks[m] : m) * problem.channels + u;
    for (int t = 0; t < n; ++t) {
      auto value = V::load(problem.features + edges[t] * row + at);
      if (weighted) value = value * problem.harmonics[edges[t] * problem.n2 + m];
      V::store(x + (m * environment_tile + t) * L, value);
    }
  }
}

template <typename T>
void forward(const EnvironmentProblem<T>& problem, T* product, T* scalars, int64_t begin, int64_t end, T* memory) {
  constexpr int64_t L = lanes<T>, tile = environment_tile;
  const Scratch<T> scratch(problem, memory);
  const int64_t channels = problem.channels;
  for (int64_t i = begin; i < end; ++i) {
    if (problem.first_edge[i] == problem.first_edge[i + 1]) continue;
    for_channels<T, false>(channels, [&](int64_t u, auto lanes_) MLIP_INLINE_LAMBDA {
      using V = decltype(lanes_);
      make_matrix(problem, scratch, i, u, lanes_);
      for_tiles(problem.first_edge[i], problem.first_edge[i + 1], [&](int64_t position, auto count) MLIP_INLINE_LAMBDA {
        constexpr int n = decltype(count)::value;
        int64_t edges[n];
        for (int t = 0; t < n; ++t) edges[t] = edge_at(problem, position + t);
        load_features(problem, edges, u, scratch.x, lanes_);
        for (int64_t m3 = 0; m3 < problem.n3; ++m3) {
          typename V::type sums[n] = {};
          for (int64_t k = problem.first_in_column[m3]; k < problem.first_in_column[m3 + 1]; ++k) {
            const auto factor = V::load(scratch.matrix + problem.column_entry[k] * L);
            const T* x = scratch.x + problem.column_row[k] * tile * L;
            for (int t = 0; t < n; ++t) sums[t] += factor * V::load(x + t * L);
          }
          for (int t = 0; t < n; ++t) {
            V::store(product + (edges[t] * problem.n3 + m3) * channels + u, sums[t]);
            if (m3 == 0) V::store(scalars + edges[t] * channels + u, sums[t]);
          }
        }
      });
    });
  }
}

/// dE/dx of a tile of edges, from component m1, to the features or to weights and harmonics.
template <typename T, typename V>
MLIP_INLINE void add_feature_gradient(const EnvironmentProblem<T>& problem, T* gradients, int64_t edge, int64_t m,
                                      int64_t u, const typename V::type& value, T* harmonic_sum) {
  const int64_t channels = problem.channels;
  if (problem.n_feature_blocks == 0) return V::store(gradients + (edge * problem.n1 + m) * channels + u, value);
  const int64_t at = (edge * problem.n_feature_blocks + problem.feature_blocks[m]) * channels + u;
  V::store(gradients + at, V::load(gradients + at) + value * problem.harmonics[edge * problem.n2 + m]);
  auto partial = Vector<T, lanes<T>>::load(harmonic_sum);
  V::add_to(partial, V::load(problem.features + at) * value);
  Vector<T, lanes<T>>::store(harmonic_sum, partial);
}

template <typename T, typename V>
MLIP_INLINE void backward_of_edges(const EnvironmentProblem<T>& problem, const EnvironmentGradients<T>& gradients,
                                   const Scratch<T>& scratch, int64_t centre, int64_t u, V vector) {
  constexpr int64_t L = lanes<T>, tile = environment_tile;
  const int64_t channels = problem.channels, first = problem.first_edge[centre];
  for_tiles(first, problem.first_edge[centre + 1], [&](int64_t position, auto count) MLIP_INLINE_LAMBDA {
    constexpr int n = decltype(count)::value;
    int64_t edges[n];
    for (int t = 0; t < n; ++t) edges[t] = edge_at(problem, position + t);
    load_features(problem, edges, u, scratch.x, vector);
    for (int t = 0; t < n; ++t) {
      for (int64_t m3 = 0; m3 < problem.n3; ++m3)
        V::store(scratch.y + (m3 * tile + t) * L,
                 V::load(gradients.product + (edges[t] * problem.n3 + m3) * channels + u));
      T* const scalar = scratch.y + t * L;
      V::store(scalar, V::load(scalar) + V::load(gradients.scalars + edges[t] * channels + u));
      for (int64_t b = 0; b < problem.n_feature_blocks; ++b)
        V::store(gradients.features + (edges[t] * problem.n_feature_blocks + b) * channels + u, typename V::type{});
    }
    for (int64_t m1 = 0; m1 < problem.n1; ++m1) {
      typename V::type x[n], sums[n] = {};
      for (int t = 0; t < n; ++t) x[t] = V::load(scratch.x + (m1 * tile + t) * L);
      for (int64_t k = problem.first_entry[m1]; k < problem.first_entry[m1 + 1]; ++k) {
        const T* y = scratch.y + problem.entry_column[k] * tile * L;
        const auto factor = V::load(scratch.matrix + k * L);
        auto of_factor = V::load(scratch.matrix_gradient + k * L);
        for (int t = 0; t < n; ++t) {
          const auto gradient = V::load(y + t * L);
          sums[t] += factor * gradient;
          of_factor += x[t] * gradient;
        }
        V::store(scratch.matrix_gradient + k * L, of_factor);
      }
      for (int t = 0; t < n; ++t)
        add_feature_gradient<T, V>(problem, gradients.features, edges[t], m1, u, sums[t],
                                   scratch.harmonic_sums + ((position + t - first) * problem.n2 + m1) * L);
    }
  });
}

/// dE/dM to the environment, and from there to the weights and harmonics of every edge.
template <typename T, typename V>
MLIP_INLINE void backward_of_environment(const EnvironmentProblem<T>& problem, const EnvironmentGradients<T>& gradients,
                                         const Scratch<T>& scratch, int64_t centre, int64_t u, V) {
  constexpr int64_t L = lanes<T>;
  using Whole = Vector<T, lanes<T>>;
  const int64_t channels = problem.channels, first = problem.first_edge[centre];
  T* const of_environment = scratch.environment_gradient;
  for (int64_t m = 0; m < problem.n2; ++m) V::store(of_environment + m * L, typename V::type{});
  for (int64_t k = 0; k < problem.n_entries; ++k) {
    const auto gradient = V::load(scratch.matrix_gradient + k * L);
    for (int64_t term = problem.first_term[k]; term < problem.first_term[k + 1]; ++term) {
      T* const target = of_environment + problem.term_environment[term] * L;
      V::store(target, V::load(target) + gradient * V::load(problem.coefficients + term * channels + u));
    }
  }
  for (int64_t position = first; position < problem.first_edge[centre + 1]; ++position) {
    const int64_t edge = edge_at(problem, position), row = edge * problem.n_weight_blocks * channels + u;
    T* const sums = scratch.harmonic_sums + (position - first) * problem.n2 * L;
    for (int64_t b = 0; b < problem.n_weight_blocks; ++b)
      V::store(gradients.weights + row + b * channels, typename V::type{});
    for (int64_t m = 0; m < problem.n2; ++m) {
      const int64_t at = row + problem.weight_blocks[m] * channels;
      const auto gradient = V::load(of_environment + m * L);
      V::store(gradients.weights + at,
               V::load(gradients.weights + at) + gradient * problem.harmonics[edge * problem.n2 + m]);
      auto partial = Whole::load(sums + m * L);
      V::add_to(partial, V::load(problem.weights + at) * gradient);
      Whole::store(sums + m * L, partial);
    }
  }
}

template <typename T>
void backward(const EnvironmentProblem<T>& problem, const EnvironmentGradients<T>& gradients, int64_t begin,
              int64_t end, T* memory) {
  constexpr int64_t L = lanes<T>;
  const Scratch<T> scratch(problem, memory);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t first = problem.first_edge[i], n_edges = problem.first_edge[i + 1] - first;
    if (n_edges == 0) continue;
    for (int64_t k = 0; k < n_edges * problem.n2 * L; ++k) scratch.harmonic_sums[k] = T(0);
    for_channels<T, false>(problem.channels, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      make_matrix(problem, scratch, i, u, vector);
      for (int64_t k = 0; k < problem.n_entries; ++k) V::store(scratch.matrix_gradient + k * L, typename V::type{});
      backward_of_edges(problem, gradients, scratch, i, u, vector);
      backward_of_environment(problem, gradients, scratch, i, u, vector);
    });
    for (int64_t k = 0; k < n_edges; ++k) {
      T* const of_harmonics = gradients.harmonics + edge_at(problem, first + k) * problem.n2;
      sum_all_lanes(scratch.harmonic_sums + k * problem.n2 * L, problem.n2, of_harmonics);
    }
  }
}

}  // namespace

extern const EnvironmentProductKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _environment_product_float32);
extern const EnvironmentProductKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _environment_product_float64);
const EnvironmentProductKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _environment_product_float32) = {
    forward<float>, backward<float>};
const EnvironmentProductKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _environment_product_float64) = {
    forward<double>, backward<double>};

}  // namespace mlip
