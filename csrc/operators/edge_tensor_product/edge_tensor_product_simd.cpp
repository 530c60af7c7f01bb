// The loops of `mlip::edge_tensor_product`, compiled once per instruction set: see simd.h for what may not be used
// here.
//
// Of a centre some edges are taken together, path by path, so that what edges share stays in registers and in the first
// cache: the sum over edges of the pass forward, the gradient of that sum in the pass back, and rows of the table,
// which edges of similar lengths share.
#include "operators/edge_tensor_product/edge_tensor_product_kernels.h"
#include "operators/radial_weights.h"
#include "operators/simd.h"

namespace mlip {
namespace {

constexpr int most = edges_of_a_block;

/// Some edges of one centre, and what a path needs of each: pointers to values of its own.
template <typename T>
struct Edges {
  int n;
  int64_t index[most];
  RowFactors<T> factors[most];  ///< with a table
  const T* weights[most];
  const T* slopes[most];    ///< with a table
  const T* features[most];  ///< of the neighbour
  const T* harmonics[most];
  T* weight_gradients[most];   ///< without a table
  T* feature_gradients[most];  ///< of the neighbour, where they are wanted

  MLIP_INLINE Edges(const TensorProductProblem<T>& problem, int64_t position, int64_t end) {
    n = static_cast<int>(end - position < most ? end - position : most);
    for (int e = 0; e < n; ++e) {
      index[e] = problem.edge_order ? problem.edge_order[position + e] : position + e;
      if (problem.table) factors[e].set(problem, index[e]);
    }
  }
};

// ---- one path ------------------------------------------------------------------------------------------------

/// c[m1 * n3 + m3] = Σ_m2 C[m2][m1 * n3 + m3] Y[m2]
template <typename T, int N2>
MLIP_INLINE void couple(const TensorProductPath<T>& path, int n2, const T* harmonics, T* coupling) {
  constexpr int L = lanes<T>;
  using V = Vector<T, L>;
  const int64_t size = path.n1 * path.n3, stride = coupling_stride(path.n1, path.n3);
  for (int64_t k = 0; k < size; k += L) {
    auto sum = V::load(path.coefficients + k) * harmonics[0];
    for (int m2 = 1; m2 < (N2 ? N2 : n2); ++m2) sum += V::load(path.coefficients + m2 * stride + k) * harmonics[m2];
    V::store(coupling + k, sum);
  }
}

/// c of each edge, coupling_stride values apart. The loop over m2 is short: unrolled, it takes half of the time.
template <typename T>
void couple(const TensorProductPath<T>& path, const Edges<T>& edges, T* coupling) {
  const int64_t stride = coupling_stride(path.n1, path.n3);
  for (int e = 0; e < edges.n; ++e, coupling += stride) {
    const T* const harmonics = edges.harmonics[e];
    switch (path.n2) {
      case 3:
        couple<T, 3>(path, 3, harmonics, coupling);
        break;
      case 5:
        couple<T, 5>(path, 5, harmonics, coupling);
        break;
      case 7:
        couple<T, 7>(path, 7, harmonics, coupling);
        break;
      default:
        couple<T, 0>(path, path.n2, harmonics, coupling);
    }
  }
}

/// out[m3] += Σ_edges w Σ_m1 c[m1][m3] x[m1]
template <typename T, int N1, int N3>
void forward_path(const TensorProductPath<T>& path, const Edges<T>& edges, const T* coupling, T* out) {
  const int64_t channels = path.channels, stride = path.output_channels;
  constexpr int64_t apart = coupling_stride(N1, N3);
  for_channels<T, N3 <= 5>(channels, [&](int64_t u, auto v) MLIP_INLINE_LAMBDA {
    using V = decltype(v);
    typename V::type sums[N3];
    for (int m3 = 0; m3 < N3; ++m3) sums[m3] = V::load(out + m3 * stride + u);
    for (int e = 0; e < edges.n; ++e) {
      const auto weight = V::load(edges.weights[e] + u);
      const T* const x = edges.features[e] + u;
      const T* const c = coupling + e * apart;
      for (int m1 = 0; m1 < N1; ++m1) {
        const auto weighted = V::load(x + m1 * channels) * weight;
        for (int m3 = 0; m3 < N3; ++m3) sums[m3] += weighted * c[m1 * N3 + m3];
      }
    }
    for (int m3 = 0; m3 < N3; ++m3) V::store(out + m3 * stride + u, sums[m3]);
  });
}

/// c is a multiple of the unit matrix.
template <typename T, int N>
void forward_scalar_path(const TensorProductPath<T>& path, const Edges<T>& edges, T* out) {
  const int64_t channels = path.channels, stride = path.output_channels;
  for_channels<T, N <= 5>(channels, [&](int64_t u, auto v) MLIP_INLINE_LAMBDA {
    using V = decltype(v);
    typename V::type sums[N];
    for (int m = 0; m < N; ++m) sums[m] = V::load(out + m * stride + u);
    for (int e = 0; e < edges.n; ++e) {
      const auto weight = V::load(edges.weights[e] + u) * (path.coefficients[0] * edges.harmonics[e][0]);
      for (int m = 0; m < N; ++m) sums[m] += weight * V::load(edges.features[e] + m * channels + u);
    }
    for (int m = 0; m < N; ++m) V::store(out + m * stride + u, sums[m]);
  });
}

/// D of a centre: edge_tensor_product_kernels.h has the formulas of the pass back.
template <typename T>
void contract(const TensorProductPath<T>& path, const T* g, T* contracted) {
  const int64_t channels = path.channels, stride = coupling_stride(path.n1, path.n3);
  for (int m1 = 0; m1 < path.n1; ++m1)
    for (int m2 = 0; m2 < path.n2; ++m2, contracted += channels) {
      const T* const c = path.coefficients + m2 * stride + m1 * path.n3;
      for_channels<T, true>(channels, [&](int64_t u, auto v) MLIP_INLINE_LAMBDA {
        using V = decltype(v);
        typename V::type sum = {};
        for (int m3 = 0; m3 < path.n3; ++m3)
          if (c[m3] != 0) sum += V::load(g + m3 * path.output_channels + u) * c[m3];  // most are zero
        V::store(contracted + u, sum);
      });
    }
}

/// Adds dE/dx, dE/dY and, with a table, dE/dr = Σ_u dE/dw dw/dr of each edge; else dE/dw is overwritten. The lanes of
/// both sums over channels are added up later.
template <typename T, int N1, int N2>
void backward_path(const TensorProductPath<T>& path, const Edges<T>& edges, const T* contracted, T* harmonic_sums,
                   int64_t n_harmonics, T* radial_sums) {
  constexpr int L = lanes<T>;
  using Lanes = Vector<T, L>;
  const int64_t channels = path.channels;
  for (int e = 0; e < edges.n; ++e) {
    T* const sums = harmonic_sums + (e * n_harmonics + path.harmonics) * L;
    typename Lanes::type of_harmonics[N2], of_distance = Lanes::load(radial_sums + e * L);
    T harmonics[N2];
    for (int m2 = 0; m2 < N2; ++m2) {
      of_harmonics[m2] = Lanes::load(sums + m2 * L);
      harmonics[m2] = edges.harmonics[e][m2];
    }
    const T *const weights = edges.weights[e], *const slopes = edges.slopes[e], *const x = edges.features[e];
    T *const weight_gradients = edges.weight_gradients[e], *const gx = edges.feature_gradients[e];
    for_channels<T, false>(channels, [&](int64_t u, auto v) MLIP_INLINE_LAMBDA {
      using V = decltype(v);
      const auto weight = V::load(weights + u);
      typename V::type weight_gradient = {};
      for (int m1 = 0; m1 < N1; ++m1) {
        const auto value = V::load(x + m1 * channels + u), weighted = value * weight;
        const T* const d = contracted + m1 * N2 * channels + u;
        auto back = V::load(d) * harmonics[0];
        V::add_to(of_harmonics[0], weighted * V::load(d));
        for (int m2 = 1; m2 < N2; ++m2) {
          const auto of_component = V::load(d + m2 * channels);
          back += of_component * harmonics[m2];
          V::add_to(of_harmonics[m2], weighted * of_component);
        }
        weight_gradient += value * back;
        if (gx) V::store(gx + m1 * channels + u, V::load(gx + m1 * channels + u) + weight * back);
      }
      if (slopes)
        V::add_to(of_distance, weight_gradient * V::load(slopes + u));
      else
        V::store(weight_gradients + u, weight_gradient);
    });
    for (int m2 = 0; m2 < N2; ++m2) Lanes::store(sums + m2 * L, of_harmonics[m2]);
    Lanes::store(radial_sums + e * L, of_distance);
  }
}

/// Paths with a component count beyond those compiled (l > 3): the same sums with loop bounds known at run time.
template <typename T>
void forward_any(const TensorProductPath<T>& path, const Edges<T>& edges, const T* coupling, T* out) {
  const int64_t apart = coupling_stride(path.n1, path.n3);
  for (int e = 0; e < edges.n; ++e)
    for (int64_t u = 0; u < path.channels; ++u)
      for (int m1 = 0; m1 < path.n1; ++m1) {
        const T weighted = edges.weights[e][u] * edges.features[e][m1 * path.channels + u];
        for (int m3 = 0; m3 < path.n3; ++m3)
          out[m3 * path.output_channels + u] += weighted * coupling[e * apart + m1 * path.n3 + m3];
      }
}

template <typename T>
void backward_any(const TensorProductPath<T>& path, const Edges<T>& edges, const T* contracted, T* harmonic_sums,
                  int64_t n_harmonics, T* radial_sums) {
  constexpr int L = lanes<T>;
  for (int e = 0; e < edges.n; ++e)
    for (int64_t u = 0; u < path.channels; ++u) {
      const T weight = edges.weights[e][u];
      T weight_gradient = 0;
      for (int m1 = 0; m1 < path.n1; ++m1) {
        const T value = edges.features[e][m1 * path.channels + u];
        T back = 0;
        for (int m2 = 0; m2 < path.n2; ++m2) {
          const T d = contracted[(m1 * path.n2 + m2) * path.channels + u];
          back += d * edges.harmonics[e][m2];
          harmonic_sums[(e * n_harmonics + path.harmonics + m2) * L] += weight * value * d;
        }
        weight_gradient += value * back;
        if (edges.feature_gradients[e]) edges.feature_gradients[e][m1 * path.channels + u] += weight * back;
      }
      if (edges.slopes[e])
        radial_sums[e * L] += weight_gradient * edges.slopes[e][u];
      else
        edges.weight_gradients[e][u] = weight_gradient;
    }
}

/// Calls body(constant N1, constant N) for the compiled component counts, or `otherwise`.
template <int N>
struct Constant {
  static constexpr int value = N;
};
template <typename Body, typename Otherwise>
MLIP_INLINE void with_components(int n1, int n, Body&& body, Otherwise&& otherwise) {
  auto second = [&](auto first) MLIP_INLINE_LAMBDA {
    switch (n) {
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
void forward(const TensorProductProblem<T>& problem, T* const* outputs, int64_t begin, int64_t end, T* scratch) {
  T* const coupling = scratch;
  T* const weights = coupling + most * largest_coupling(problem);
  for (int64_t i = begin; i < end; ++i) {
    for (int k = 0; k < problem.n_outputs; ++k) {
      T* row = outputs[k] + i * problem.output_sizes[k];
      for (int64_t u = 0; u < problem.output_sizes[k]; ++u) row[u] = 0;
    }
    for (int64_t position = problem.first_edge[i]; position < problem.first_edge[i + 1]; position += most) {
      Edges<T> edges(problem, position, problem.first_edge[i + 1]);
      for (int p = 0; p < problem.n_paths; ++p) {
        const TensorProductPath<T>& path = problem.paths[p];
        for (int e = 0; e < edges.n; ++e) {
          const int64_t edge = edges.index[e];
          T* const of_table = weights + e * path.channels;
          if (problem.table)
            radial_weights(edges.factors[e], problem.table + path.weights, problem.n_weights, path.channels, of_table);
          edges.weights[e] = problem.table ? of_table : problem.radial + edge * problem.n_weights + path.weights;
          edges.features[e] = problem.features + problem.neighbours[edge] * problem.n_features + path.features;
          edges.harmonics[e] = problem.harmonics + edge * problem.n_harmonics + path.harmonics;
        }
        T* const out = outputs[path.output] + i * problem.output_sizes[path.output] + path.output_offset;
        with_components(
            path.n1, path.n3,
            [&](auto n1, auto n3) {
              if constexpr (n1.value == n3.value)
                if (path.is_scalar) return forward_scalar_path<T, n1.value>(path, edges, out);
              couple(path, edges, coupling);
              forward_path<T, n1.value, n3.value>(path, edges, coupling, out);
            },
            [&] {
              couple(path, edges, coupling);
              forward_any(path, edges, coupling, out);
            });
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
  T* const radial_sums = harmonic_sums + L * most * n_harmonics;
  T* const contracted = radial_sums + L * most;
  T* const weights = contracted + contraction_size(problem);
  T* const slopes = weights + most * largest_channels(problem);
  for (int64_t i = begin; i < end; ++i) {
    if (problem.first_edge[i] == problem.first_edge[i + 1]) continue;
    T* d = contracted;
    for (int p = 0; p < problem.n_paths; ++p) {
      const TensorProductPath<T>& path = problem.paths[p];
      contract(path, gradients.outputs[path.output] + i * problem.output_sizes[path.output] + path.output_offset, d);
      d += contraction_size(path);
    }
    for (int64_t position = problem.first_edge[i]; position < problem.first_edge[i + 1]; position += most) {
      Edges<T> edges(problem, position, problem.first_edge[i + 1]);
      d = contracted;
      for (int64_t k = 0; k < L * edges.n * n_harmonics; ++k) harmonic_sums[k] = 0;
      for (int64_t k = 0; k < L * edges.n; ++k) radial_sums[k] = 0;
      for (int p = 0; p < problem.n_paths; ++p) {
        const TensorProductPath<T>& path = problem.paths[p];
        for (int e = 0; e < edges.n; ++e) {
          const int64_t edge = edges.index[e], neighbour = problem.neighbours[edge];
          const int64_t of_edge = edge * problem.n_weights + path.weights;
          T* const of_table = weights + e * path.channels;
          T* const slopes_of_table = slopes + e * path.channels;
          if (problem.table)
            radial_weights(problem.layout.is_spline, edges.factors[e], problem.table + path.weights, problem.n_weights,
                           path.channels, of_table, slopes_of_table);
          edges.weights[e] = problem.table ? of_table : problem.radial + of_edge;
          edges.slopes[e] = problem.table ? slopes_of_table : nullptr;
          edges.weight_gradients[e] = problem.table ? nullptr : gradients.radial + of_edge;
          edges.features[e] = problem.features + neighbour * problem.n_features + path.features;
          edges.feature_gradients[e] =
              gradients.features ? gradients.features + neighbour * problem.n_features + path.features : nullptr;
          edges.harmonics[e] = problem.harmonics + edge * n_harmonics + path.harmonics;
        }
        with_components(
            path.n1, path.n2,
            [&](auto n1, auto n2) {
              backward_path<T, n1.value, n2.value>(path, edges, d, harmonic_sums, n_harmonics, radial_sums);
            },
            [&] { backward_any(path, edges, d, harmonic_sums, n_harmonics, radial_sums); });
        d += contraction_size(path);
      }
      for (int e = 0; e < edges.n; ++e) {
        const int64_t edge = edges.index[e];
        sum_all_lanes(harmonic_sums + L * e * n_harmonics, n_harmonics, gradients.harmonics + edge * n_harmonics);
        if (problem.table) gradients.radial[edge] = sum_of_lanes<T>(Vector<T, L>::load(radial_sums + L * e));
      }
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
