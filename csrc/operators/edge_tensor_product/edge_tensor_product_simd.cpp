// The loops of `mlip::edge_tensor_product`, compiled once per instruction set: see simd.h for what may not be used
// here.
#include "operators/edge_tensor_product/edge_tensor_product_kernels.h"
#include "operators/radial_weights.h"
#include "operators/simd.h"

namespace mlip {
namespace {

// ---- one path of one edge ------------------------------------------------------------------------------------

/// c[m1 * n3 + m3] = Σ_m2 C[m2][m1 * n3 + m3] Y[m2]
template <typename T>
MLIP_INLINE void couple(const TensorProductPath<T>& path, const T* harmonics, T* coupling) {
  constexpr int L = lanes<T>;
  using V = Vector<T, L>;
  const int64_t stride = coupling_stride(path.n1, path.n3);
  for (int64_t k = 0; k < path.n1 * path.n3; k += L) {
    auto sum = V::load(path.coefficients + k) * harmonics[0];
    for (int m2 = 1; m2 < path.n2; ++m2) sum += V::load(path.coefficients + m2 * stride + k) * harmonics[m2];
    V::store(coupling + k, sum);
  }
}

/// dE/dY[m] = Σ_k C[m][k] dE/dc[k] over the couplings k of all paths of an edge, given as vectors whose lanes are
/// still channels: one fold per edge.
template <typename T>
MLIP_INLINE void uncouple(const TensorProductProblem<T>& problem, const T* coupling_sums, T* harmonic_sums,
                          T* harmonics_gradient) {
  constexpr int L = lanes<T>;
  using V = Vector<T, L>;
  for (int64_t m = 0; m < problem.n_harmonics; ++m) {
    typename V::type sum = {};
    for (int64_t k = problem.first_term[m]; k < problem.first_term[m + 1]; ++k)
      sum += V::load(coupling_sums + problem.terms[k].coupling * L) * problem.terms[k].coefficient;
    V::store(harmonic_sums + m * L, sum);
  }
  sum_all_lanes(harmonic_sums, problem.n_harmonics, harmonics_gradient);
}

template <typename T, int N1, int N3>
void forward_path(const TensorProductPath<T>& path, const T* coupling, const T* x, const T* weights, T* out) {
  const int64_t channels = path.channels, stride = path.output_channels;
  for_channels<T, N1 <= 5>(channels, [&](int64_t u, auto v) MLIP_INLINE_LAMBDA {
    using V = decltype(v);
    const auto weight = V::load(weights + u);
    typename V::type weighted[N1];
    for (int m1 = 0; m1 < N1; ++m1) weighted[m1] = V::load(x + m1 * channels + u) * weight;
    for (int m3 = 0; m3 < N3; ++m3) {
      auto sum = V::load(out + m3 * stride + u);
      for (int m1 = 0; m1 < N1; ++m1) sum += weighted[m1] * coupling[m1 * N3 + m3];
      V::store(out + m3 * stride + u, sum);
    }
  });
}

/// c is a multiple of the unit matrix.
template <typename T, int N>
void forward_scalar_path(const TensorProductPath<T>& path, T factor, const T* x, const T* weights, T* out) {
  const int64_t channels = path.channels, stride = path.output_channels;
  for_channels<T, true>(channels, [&](int64_t u, auto v) MLIP_INLINE_LAMBDA {
    using V = decltype(v);
    const auto weight = V::load(weights + u) * factor;
    for (int m = 0; m < N; ++m)
      V::store(out + m * stride + u, V::load(out + m * stride + u) + weight * V::load(x + m * channels + u));
  });
}

/// Σ_u a[m1][u] g[m3][u] for `tile` columns m3: one vector of partial sums each, at sums[m1 * N3 + m3].
template <typename T, int N1, int N3, int tile>
MLIP_INLINE void outer_products(int64_t channels, const T* a, const T* g, int64_t stride, int m3, T* sums) {
  constexpr int L = lanes<T>;
  using V = Vector<T, L>;
  typename V::type partial[tile][N1] = {};
  for_channels<T, false>(channels, [&](int64_t u, auto v) MLIP_INLINE_LAMBDA {
    using W = decltype(v);
    typename W::type gradient[tile];
    for (int t = 0; t < tile; ++t) gradient[t] = W::load(g + (m3 + t) * stride + u);
    for (int m1 = 0; m1 < N1; ++m1) {
      const auto value = W::load(a + m1 * channels + u);
      for (int t = 0; t < tile; ++t) W::add_to(partial[t][m1], value * gradient[t]);
    }
  });
  for (int t = 0; t < tile; ++t)
    for (int m1 = 0; m1 < N1; ++m1) V::store(sums + (m1 * N3 + m3 + t) * L, partial[t][m1]);
}

/// Per path: g = dE/dout; dE/dw to `weight_gradients`; gx += dE/dx (when wanted); dE/dc to `coupling_sums`, whose lanes
/// are summed later.
template <typename T, int N1, int N3>
void backward_path(const TensorProductPath<T>& path, const T* coupling, const T* x, const T* weights,
                   T* weight_gradients, const T* g, T* gx, T* coupling_sums, T* weighted) {
  const int64_t channels = path.channels, stride = path.output_channels;
  // back[m1] = Σ_m3 c[m1][m3] g[m3];  dE/dw = Σ_m1 x[m1] back[m1];  dE/dx[m1] = w back[m1]
  for_channels<T, N1 <= 5>(channels, [&](int64_t u, auto v) MLIP_INLINE_LAMBDA {
    using V = decltype(v);
    typename V::type back[N1];
    {
      const auto gradient = V::load(g + u);
      for (int m1 = 0; m1 < N1; ++m1) back[m1] = gradient * coupling[m1 * N3];
    }
    for (int m3 = 1; m3 < N3; ++m3) {
      const auto gradient = V::load(g + m3 * stride + u);
      for (int m1 = 0; m1 < N1; ++m1) back[m1] += gradient * coupling[m1 * N3 + m3];
    }
    auto weight_gradient = V::load(x + u) * back[0];
    for (int m1 = 1; m1 < N1; ++m1) weight_gradient += V::load(x + m1 * channels + u) * back[m1];
    V::store(weight_gradients + u, weight_gradient);
    const auto weight = V::load(weights + u);
    for (int m1 = 0; m1 < N1; ++m1) V::store(weighted + m1 * channels + u, V::load(x + m1 * channels + u) * weight);
    if (gx)
      for (int m1 = 0; m1 < N1; ++m1)
        V::store(gx + m1 * channels + u, V::load(gx + m1 * channels + u) + weight * back[m1]);
  });
  // dE/dc[m1][m3] = Σ_u w x[m1] g[m3], in tiles of columns whose partial sums stay in registers
  constexpr int registers = MLIP_VECTOR_BYTES == 64 ? 28 : 12;
  constexpr int tile = N3 < registers / (N1 + 1) ? N3 : registers / (N1 + 1);
  int m3 = 0;
  for (; m3 + tile <= N3; m3 += tile) outer_products<T, N1, N3, tile>(channels, weighted, g, stride, m3, coupling_sums);
  if constexpr (N3 % tile != 0) outer_products<T, N1, N3, N3 % tile>(channels, weighted, g, stride, m3, coupling_sums);
}

/// c is a multiple of the unit matrix, and its one factor has one gradient.
template <typename T, int N>
void backward_scalar_path(const TensorProductPath<T>& path, T factor, const T* x, const T* weights, T* weight_gradients,
                          const T* g, T* gx, T* coupling_sums) {
  constexpr int L = lanes<T>;
  const int64_t channels = path.channels, stride = path.output_channels;
  typename Vector<T, L>::type factor_sums = {};
  for_channels<T, true>(channels, [&](int64_t u, auto v) MLIP_INLINE_LAMBDA {
    using V = decltype(v);
    auto product = V::load(x + u) * V::load(g + u);
    for (int m = 1; m < N; ++m) product += V::load(x + m * channels + u) * V::load(g + m * stride + u);
    V::store(weight_gradients + u, product * factor);
    const auto weight = V::load(weights + u);
    V::add_to(factor_sums, product * weight);
    if (gx)
      for (int m = 0; m < N; ++m)
        V::store(gx + m * channels + u, V::load(gx + m * channels + u) + weight * factor * V::load(g + m * stride + u));
  });
  // Every value of the diagonal is the factor: the first stands for all.
  for (int m = 0; m < N; ++m)
    Vector<T, L>::store(coupling_sums + m * (N + 1) * L, m == 0 ? factor_sums : typename Vector<T, L>::type{});
}

/// Paths with a component count beyond those compiled (l > 3): the same sums with loop bounds known at run time.
template <typename T>
void forward_any(const TensorProductPath<T>& path, const T* coupling, const T* x, const T* weights, T* out) {
  for (int64_t u = 0; u < path.channels; ++u)
    for (int m1 = 0; m1 < path.n1; ++m1)
      for (int m3 = 0; m3 < path.n3; ++m3)
        out[m3 * path.output_channels + u] += weights[u] * x[m1 * path.channels + u] * coupling[m1 * path.n3 + m3];
}

template <typename T>
void backward_any(const TensorProductPath<T>& path, const T* coupling, const T* x, const T* weights,
                  T* weight_gradients, const T* g, T* gx, T* coupling_sums) {
  constexpr int L = lanes<T>;
  for (int64_t k = 0; k < path.n1 * path.n3 * L; ++k) coupling_sums[k] = 0;
  for (int64_t u = 0; u < path.channels; ++u) {
    T weight_gradient = 0;
    for (int m1 = 0; m1 < path.n1; ++m1)
      for (int m3 = 0; m3 < path.n3; ++m3)
        weight_gradient += coupling[m1 * path.n3 + m3] * x[m1 * path.channels + u] * g[m3 * path.output_channels + u];
    weight_gradients[u] = weight_gradient;
    for (int m1 = 0; m1 < path.n1; ++m1)
      for (int m3 = 0; m3 < path.n3; ++m3) {
        const T weighted = weights[u] * g[m3 * path.output_channels + u];
        coupling_sums[(m1 * path.n3 + m3) * L] += weighted * x[m1 * path.channels + u];
        if (gx) gx[m1 * path.channels + u] += weighted * coupling[m1 * path.n3 + m3];
      }
  }
}

/// Calls body(constant N1, constant N3) for the compiled component counts, or `otherwise`.
template <int N>
struct Constant {
  static constexpr int value = N;
};
template <typename Body, typename Otherwise>
MLIP_INLINE void with_components(int n1, int n3, Body&& body, Otherwise&& otherwise) {
  auto second = [&](auto first) MLIP_INLINE_LAMBDA {
    switch (n3) {
      case 1:
        return body(first, Constant<1>{});
      case 3:
        return body(first, Constant<3>{});
      case 5:
        return body(first, Constant<5>{});
      case 7:
        return body(first, Constant<7>{});
      default:
        return otherwise();
    }
  };
  switch (n1) {
    case 1:
      return second(Constant<1>{});
    case 3:
      return second(Constant<3>{});
    case 5:
      return second(Constant<5>{});
    case 7:
      return second(Constant<7>{});
    default:
      return otherwise();
  }
}

// ---- all edges of a range of centres -------------------------------------------------------------------------

template <typename T>
MLIP_INLINE int64_t edge_at(const TensorProductProblem<T>& problem, int64_t position) {
  return problem.edge_order ? problem.edge_order[position] : position;
}

template <typename T>
void forward(const TensorProductProblem<T>& problem, T* const* outputs, int64_t begin, int64_t end, T* scratch) {
  T* const coupling = scratch;
  T* const weights_of_table = coupling + largest_coupling(problem);
  for (int64_t i = begin; i < end; ++i) {
    for (int k = 0; k < problem.n_outputs; ++k) {
      T* row = outputs[k] + i * problem.output_sizes[k];
      for (int64_t u = 0; u < problem.output_sizes[k]; ++u) row[u] = 0;
    }
    for (int64_t position = problem.first_edge[i]; position < problem.first_edge[i + 1]; ++position) {
      const int64_t edge = edge_at(problem, position);
      const T* row = problem.features + problem.neighbours[edge] * problem.n_features;
      const T* harmonics = problem.harmonics + edge * problem.n_harmonics;
      if (problem.table) radial_weights(problem, edge, weights_of_table);
      const T* weights_of_edge = problem.table ? weights_of_table : problem.radial + edge * problem.n_weights;
      for (int p = 0; p < problem.n_paths; ++p) {
        const TensorProductPath<T>& path = problem.paths[p];
        const T* x = row + path.features;
        const T* weights = weights_of_edge + path.weights;
        T* out = outputs[path.output] + i * problem.output_sizes[path.output] + path.output_offset;
        couple(path, harmonics + path.harmonics, coupling);
        with_components(
            path.n1, path.n3,
            [&](auto n1, auto n3) {
              if constexpr (n1.value == n3.value) {
                if (path.is_scalar) return forward_scalar_path<T, n1.value>(path, coupling[0], x, weights, out);
              }
              forward_path<T, n1.value, n3.value>(path, coupling, x, weights, out);
            },
            [&] { forward_any(path, coupling, x, weights, out); });
      }
    }
  }
}

template <typename T>
void backward(const TensorProductProblem<T>& problem, const TensorProductGradients<T>& gradients, int64_t begin,
              int64_t end, T* scratch) {
  constexpr int L = lanes<T>;
  const int64_t n_harmonics = problem.n_harmonics;
  T* const harmonic_sums = scratch;
  T* const coupling_sums = harmonic_sums + L * n_harmonics;
  T* const coupling = coupling_sums + L * problem.n_couplings;
  T* const weighted = coupling + largest_coupling(problem);
  // With a table, of an edge:
  T* const weights_of_table = weighted + largest_block(problem);
  T* const slopes = weights_of_table + problem.n_weights;
  T* const gradients_of_table = slopes + problem.n_weights;
  if (problem.table)
    for (int64_t k = 0; k < problem.n_weights; ++k) gradients_of_table[k] = 0;  // of weights that no path has, too
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t position = problem.first_edge[i]; position < problem.first_edge[i + 1]; ++position) {
      const int64_t edge = edge_at(problem, position);
      const int64_t neighbour = problem.neighbours[edge];
      const T* row = problem.features + neighbour * problem.n_features;
      const T* harmonics = problem.harmonics + edge * n_harmonics;
      T* row_gradient = gradients.features ? gradients.features + neighbour * problem.n_features : nullptr;
      if (problem.table) radial_weights(problem, edge, weights_of_table, slopes);
      const T* weights_of_edge = problem.table ? weights_of_table : problem.radial + edge * problem.n_weights;
      T* gradients_of_edge = problem.table ? gradients_of_table : gradients.radial + edge * problem.n_weights;
      T* sums = coupling_sums;
      for (int p = 0; p < problem.n_paths; ++p) {
        const TensorProductPath<T>& path = problem.paths[p];
        const T* x = row + path.features;
        const T* weights = weights_of_edge + path.weights;
        T* weight_gradients = gradients_of_edge + path.weights;
        const T* g = gradients.outputs[path.output] + i * problem.output_sizes[path.output] + path.output_offset;
        T* gx = row_gradient ? row_gradient + path.features : nullptr;
        couple(path, harmonics + path.harmonics, coupling);
        with_components(
            path.n1, path.n3,
            [&](auto n1, auto n3) {
              if constexpr (n1.value == n3.value)
                if (path.is_scalar)
                  return backward_scalar_path<T, n1.value>(path, coupling[0], x, weights, weight_gradients, g, gx,
                                                           sums);
              backward_path<T, n1.value, n3.value>(path, coupling, x, weights, weight_gradients, g, gx, sums, weighted);
            },
            [&] { backward_any(path, coupling, x, weights, weight_gradients, g, gx, sums); });
        sums += L * path.n1 * path.n3;
      }
      if (problem.table) gradients.radial[edge] = dot<T>(slopes, gradients_of_table, problem.n_weights);
      uncouple(problem, coupling_sums, harmonic_sums, gradients.harmonics + edge * n_harmonics);
    }
  }
}

}  // namespace

extern const TensorProductKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _edge_tensor_product_float32);
extern const TensorProductKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _edge_tensor_product_float64);
const TensorProductKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _edge_tensor_product_float32) = {
    forward<float>, backward<float>};
const TensorProductKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _edge_tensor_product_float64) = {
    forward<double>, backward<double>};

}  // namespace mlip
