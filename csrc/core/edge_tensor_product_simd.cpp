// The loops of `mlip::edge_tensor_product`, compiled once per instruction set (CMakeLists.txt) with
//   MLIP_INSTRUCTION_SET   name of the set: portable, avx2, avx512
//   MLIP_VECTOR_BYTES      width of its vectors
//
// Nothing here may use an inline function of the standard library: the linker keeps one copy of such a function,
// perhaps this one, with instructions that another processor lacks.
#include "core/edge_tensor_product_kernels.h"

#define MLIP_CONCATENATE_(a, b) a##b
#define MLIP_CONCATENATE(a, b) MLIP_CONCATENATE_(a, b)
#define MLIP_STRING_(a) #a
#define MLIP_STRING(a) MLIP_STRING_(a)
#define MLIP_INLINE inline __attribute__((always_inline))

namespace mlip {
namespace {

using std::int64_t;

/// L values side by side; L = 1 is the remainder of a loop over channels.
template <typename T, int L>
struct Vector {
  typedef T type __attribute__((vector_size(L * sizeof(T))));
  typedef T unaligned __attribute__((vector_size(L * sizeof(T)), aligned(alignof(T)), may_alias));
  static MLIP_INLINE type load(const T* p) { return *reinterpret_cast<const unaligned*>(p); }
  static MLIP_INLINE void store(T* p, type v) { *reinterpret_cast<unaligned*>(p) = v; }
  static MLIP_INLINE T sum(type v) {
    T total = 0;
    for (int lane = 0; lane < L; ++lane) total += v[lane];
    return total;
  }
};
template <typename T>
struct Vector<T, 1> {
  typedef T type;
  static MLIP_INLINE T load(const T* p) { return *p; }
  static MLIP_INLINE void store(T* p, T v) { *p = v; }
  static MLIP_INLINE T sum(T v) { return v; }
};

template <typename T>
constexpr int lanes = MLIP_VECTOR_BYTES / sizeof(T);

/// Calls body(first channel, vector type) over all channels: whole vectors, then single values.
template <typename T, typename Body>
MLIP_INLINE void for_channels(int64_t channels, Body&& body) {
  constexpr int L = lanes<T>;
  int64_t u = 0;
  for (; u + L <= channels; u += L) body(u, Vector<T, L>{});
  for (; u < channels; ++u) body(u, Vector<T, 1>{});
}

// ---- radial weights ------------------------------------------------------------------------------------------

/// Interval and position in it of a distance. In float64: k can be several hundred, and s is a difference.
template <typename T>
MLIP_INLINE const T* table_row(const TensorProductProblem<T>& problem, T distance, T& s) {
  const double position = static_cast<double>(distance) * problem.inverse_step;
  int64_t k = static_cast<int64_t>(position);
  if (k < 0) k = 0;
  if (k >= problem.n_intervals) k = problem.n_intervals - 1;
  s = static_cast<T>(position - static_cast<double>(k));
  return problem.table + k * 6 * problem.n_weights;
}

template <typename T>
const T* radial_weights(const TensorProductProblem<T>& problem, int64_t edge, T* weights) {
  if (!problem.table) return problem.radial + edge * problem.n_weights;
  T s;
  const int64_t n = problem.n_weights;
  const T* c = table_row(problem, problem.radial[edge], s);
  for_channels<T>(n, [&](int64_t u, auto v) {
    using V = decltype(v);
    auto value = V::load(c + 5 * n + u);
    for (int power = 4; power >= 0; --power) value = value * s + V::load(c + power * n + u);
    V::store(weights + u, value);
  });
  return weights;
}

/// With a table also dw/dr.
template <typename T>
const T* radial_weights_and_derivatives(const TensorProductProblem<T>& problem, int64_t edge, T* weights,
                                        T* derivatives) {
  if (!problem.table) return problem.radial + edge * problem.n_weights;
  T s;
  const int64_t n = problem.n_weights;
  const T* c = table_row(problem, problem.radial[edge], s);
  const T inverse_step = static_cast<T>(problem.inverse_step);
  for_channels<T>(n, [&](int64_t u, auto v) {
    using V = decltype(v);
    auto value = V::load(c + 5 * n + u);
    auto derivative = value;
    value = value * s + V::load(c + 4 * n + u);
    for (int power = 3; power >= 0; --power) {
      derivative = derivative * s + value;
      value = value * s + V::load(c + power * n + u);
    }
    V::store(weights + u, value);
    V::store(derivatives + u, derivative * inverse_step);
  });
  return weights;
}

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

template <typename T, int N1, int N3>
void forward_path(const TensorProductPath<T>& path, const T* coupling, const T* x, const T* w, T* out) {
  const int64_t channels = path.channels, stride = path.output_channels;
  for_channels<T>(channels, [&](int64_t u, auto v) {
    using V = decltype(v);
    const auto weight = V::load(w + u);
    typename V::type weighted[N1];
    for (int m1 = 0; m1 < N1; ++m1) weighted[m1] = V::load(x + m1 * channels + u) * weight;
    for (int m3 = 0; m3 < N3; ++m3) {
      auto sum = V::load(out + m3 * stride + u);
      for (int m1 = 0; m1 < N1; ++m1) sum += weighted[m1] * coupling[m1 * N3 + m3];
      V::store(out + m3 * stride + u, sum);
    }
  });
}

/// l2 = 0: c is a multiple of the unit matrix.
template <typename T, int N>
void forward_scalar_path(const TensorProductPath<T>& path, T factor, const T* x, const T* w, T* out) {
  const int64_t channels = path.channels, stride = path.output_channels;
  for_channels<T>(channels, [&](int64_t u, auto v) {
    using V = decltype(v);
    const auto weight = V::load(w + u) * factor;
    for (int m = 0; m < N; ++m)
      V::store(out + m * stride + u, V::load(out + m * stride + u) + weight * V::load(x + m * channels + u));
  });
}

/// Per path: g = dE/dout, gw = dE/dw, gx += dE/dx (when wanted), and the sums over channels that dE/dY needs,
/// one vector of partial sums for each m2, added to `gy`.
template <typename T, int N1, int N3>
void backward_path(const TensorProductPath<T>& path, const T* coupling, const T* x, const T* w, const T* g, T* gx,
                   T* gw, T* gy, T* weighted) {
  const int64_t channels = path.channels, stride = path.output_channels;
  // back[m1] = Σ_m3 c[m1][m3] g[m3];  gw = Σ_m1 x[m1] back[m1];  gx[m1] += w back[m1]
  for_channels<T>(channels, [&](int64_t u, auto v) {
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
    const auto weight = V::load(w + u);
    auto weight_gradient = V::load(x + u) * back[0];
    V::store(weighted + u, V::load(x + u) * weight);
    for (int m1 = 1; m1 < N1; ++m1) {
      const auto feature = V::load(x + m1 * channels + u);
      weight_gradient += feature * back[m1];
      V::store(weighted + m1 * channels + u, feature * weight);
    }
    V::store(gw + u, weight_gradient);
    if (gx)
      for (int m1 = 0; m1 < N1; ++m1)
        V::store(gx + m1 * channels + u, V::load(gx + m1 * channels + u) + weight * back[m1]);
  });
  // dE/dc[m1][m3] = Σ_u w x[m1] g[m3], kept as vectors of partial sums;  gy[m2] += Σ C[m1, m2, m3] dE/dc[m1][m3]
  constexpr int L = lanes<T>;
  using V = Vector<T, L>;
  constexpr int tile = N1 <= 5 && N3 > 1 ? 2 : 1;  // m3 at a time: the partial sums stay in registers
  const int64_t whole = channels / L * L;
  const int64_t coefficient_stride = coupling_stride(N1, N3);
  for (int m3 = 0; m3 < N3; m3 += tile) {
    typename V::type sums[tile][N1] = {};
    const int here = m3 + tile <= N3 ? tile : 1;
    if (here == tile) {
      for (int64_t u = 0; u < whole; u += L) {
        typename V::type gradient[tile];
        for (int t = 0; t < tile; ++t) gradient[t] = V::load(g + (m3 + t) * stride + u);
        for (int m1 = 0; m1 < N1; ++m1) {
          const auto feature = V::load(weighted + m1 * channels + u);
          for (int t = 0; t < tile; ++t) sums[t][m1] += feature * gradient[t];
        }
      }
    } else {
      for (int64_t u = 0; u < whole; u += L) {
        const auto gradient = V::load(g + m3 * stride + u);
        for (int m1 = 0; m1 < N1; ++m1) sums[0][m1] += V::load(weighted + m1 * channels + u) * gradient;
      }
    }
    for (int t = 0; t < here; ++t)
      for (int m1 = 0; m1 < N1; ++m1)
        for (int64_t u = whole; u < channels; ++u)
          sums[t][m1][0] += weighted[m1 * channels + u] * g[(m3 + t) * stride + u];
    for (int m2 = 0; m2 < path.n2; ++m2) {
      auto sum = V::load(gy + m2 * L);
      for (int t = 0; t < here; ++t)
        for (int m1 = 0; m1 < N1; ++m1)
          sum += sums[t][m1] * path.coefficients[m2 * coefficient_stride + m1 * N3 + m3 + t];
      V::store(gy + m2 * L, sum);
    }
  }
}

/// Paths with a component count beyond those compiled (l > 3): the same sums with loop bounds known at run time.
template <typename T>
void forward_any(const TensorProductPath<T>& path, const T* coupling, const T* x, const T* w, T* out) {
  const int64_t channels = path.channels, stride = path.output_channels;
  for (int m1 = 0; m1 < path.n1; ++m1)
    for (int m3 = 0; m3 < path.n3; ++m3) {
      const T c = coupling[m1 * path.n3 + m3];
      if (c == 0) continue;
      for_channels<T>(channels, [&](int64_t u, auto v) {
        using V = decltype(v);
        V::store(out + m3 * stride + u,
                 V::load(out + m3 * stride + u) + V::load(w + u) * V::load(x + m1 * channels + u) * c);
      });
    }
}

template <typename T>
void backward_any(const TensorProductPath<T>& path, const T* coupling, const T* x, const T* w, const T* g, T* gx,
                  T* gw, T* gy) {
  const int64_t channels = path.channels, stride = path.output_channels;
  const int64_t coefficient_stride = coupling_stride(path.n1, path.n3);
  for (int64_t u = 0; u < channels; ++u) gw[u] = 0;
  for (int m1 = 0; m1 < path.n1; ++m1)
    for (int m3 = 0; m3 < path.n3; ++m3) {
      const T c = coupling[m1 * path.n3 + m3];
      T sum = 0;
      for (int64_t u = 0; u < channels; ++u) {
        const T gradient = g[m3 * stride + u];
        const T feature = x[m1 * channels + u];
        gw[u] += c * feature * gradient;
        sum += w[u] * feature * gradient;
        if (gx) gx[m1 * channels + u] += c * w[u] * gradient;
      }
      for (int m2 = 0; m2 < path.n2; ++m2)
        gy[m2 * lanes<T>] += sum * path.coefficients[m2 * coefficient_stride + m1 * path.n3 + m3];
    }
}

/// Calls body(constant N1, constant N3) for the compiled component counts, or `otherwise`.
template <int N>
struct Constant {
  static constexpr int value = N;
};
template <typename Body, typename Otherwise>
MLIP_INLINE void with_components(int n1, int n3, Body&& body, Otherwise&& otherwise) {
  auto second = [&](auto first) __attribute__((always_inline)) {
    switch (n3) {
      case 1: return body(first, Constant<1>{});
      case 3: return body(first, Constant<3>{});
      case 5: return body(first, Constant<5>{});
      case 7: return body(first, Constant<7>{});
      default: return otherwise();
    }
  };
  switch (n1) {
    case 1: return second(Constant<1>{});
    case 3: return second(Constant<3>{});
    case 5: return second(Constant<5>{});
    case 7: return second(Constant<7>{});
    default: return otherwise();
  }
}

// ---- all edges of a range of centres -------------------------------------------------------------------------

template <typename T>
void forward(const TensorProductProblem<T>& problem, T* const* outputs, int64_t begin, int64_t end, T* scratch) {
  T* const weight_buffer = scratch;
  T* const coupling = weight_buffer + problem.n_weights;
  for (int64_t i = begin; i < end; ++i) {
    for (int k = 0; k < problem.n_outputs; ++k) {
      T* row = outputs[k] + i * problem.output_sizes[k];
      for (int64_t u = 0; u < problem.output_sizes[k]; ++u) row[u] = 0;
    }
    for (int64_t position = problem.first_edge[i]; position < problem.first_edge[i + 1]; ++position) {
      const int64_t edge = problem.edge_order ? problem.edge_order[position] : position;
      const T* row = problem.features + problem.neighbours[edge] * problem.n_features;
      const T* weights = radial_weights(problem, edge, weight_buffer);
      for (int p = 0; p < problem.n_paths; ++p) {
        const TensorProductPath<T>& path = problem.paths[p];
        const T* x = row + path.features;
        const T* w = weights + path.weights;
        T* out = outputs[path.output] + i * problem.output_sizes[path.output] + path.output_offset;
        couple(path, problem.harmonics + edge * problem.n_harmonics + path.harmonics, coupling);
        with_components(
            path.n1, path.n3,
            [&](auto n1, auto n3) {
              if constexpr (n1.value == n3.value && n1.value > 1) {
                if (path.n2 == 1) return forward_scalar_path<T, n1.value>(path, coupling[0], x, w, out);
              }
              forward_path<T, n1.value, n3.value>(path, coupling, x, w, out);
            },
            [&] { forward_any(path, coupling, x, w, out); });
      }
    }
  }
}

template <typename T>
void backward(const TensorProductProblem<T>& problem, const TensorProductGradients<T>& gradients, int64_t begin,
              int64_t end, T* scratch) {
  constexpr int L = lanes<T>;
  const int64_t n_weights = problem.n_weights, n_harmonics = problem.n_harmonics;
  T* const weight_buffer = scratch;
  T* const derivatives = weight_buffer + n_weights;
  T* const weight_gradients = derivatives + n_weights;
  T* const harmonic_sums = weight_gradients + n_weights;
  T* const coupling = harmonic_sums + L * n_harmonics;
  T* weighted = coupling;
  for (int p = 0; p < problem.n_paths; ++p) {
    T* behind = coupling + coupling_stride(problem.paths[p].n1, problem.paths[p].n3);
    if (behind > weighted) weighted = behind;
  }
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t position = problem.first_edge[i]; position < problem.first_edge[i + 1]; ++position) {
      const int64_t edge = problem.edge_order ? problem.edge_order[position] : position;
      const int64_t neighbour = problem.neighbours[edge];
      const T* row = problem.features + neighbour * problem.n_features;
      T* row_gradient = gradients.features ? gradients.features + neighbour * problem.n_features : nullptr;
      const T* weights = radial_weights_and_derivatives(problem, edge, weight_buffer, derivatives);
      T* const gw_row = problem.table ? weight_gradients : gradients.radial + edge * n_weights;
      for (int64_t m = 0; m < L * n_harmonics; ++m) harmonic_sums[m] = 0;
      for (int p = 0; p < problem.n_paths; ++p) {
        const TensorProductPath<T>& path = problem.paths[p];
        const T* x = row + path.features;
        const T* w = weights + path.weights;
        const T* g = gradients.outputs[path.output] + i * problem.output_sizes[path.output] + path.output_offset;
        T* gx = row_gradient ? row_gradient + path.features : nullptr;
        T* gw = gw_row + path.weights;
        T* gy = harmonic_sums + L * path.harmonics;
        couple(path, problem.harmonics + edge * n_harmonics + path.harmonics, coupling);
        with_components(
            path.n1, path.n3,
            [&](auto n1, auto n3) {
              backward_path<T, n1.value, n3.value>(path, coupling, x, w, g, gx, gw, gy, weighted);
            },
            [&] { backward_any(path, coupling, x, w, g, gx, gw, gy); });
      }
      T* gy = gradients.harmonics + edge * n_harmonics;
      for (int64_t m = 0; m < n_harmonics; ++m)
        gy[m] = Vector<T, L>::sum(Vector<T, L>::load(harmonic_sums + m * L));
      if (problem.table) {
        typename Vector<T, L>::type sums = {};
        T rest = 0;
        int64_t u = 0;
        for (; u + L <= n_weights; u += L)
          sums += Vector<T, L>::load(weight_gradients + u) * Vector<T, L>::load(derivatives + u);
        for (; u < n_weights; ++u) rest += weight_gradients[u] * derivatives[u];
        gradients.radial[edge] = rest + Vector<T, L>::sum(sums);
      }
    }
  }
}

bool supported() {
#if defined(__AVX512F__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw");
#elif defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

}  // namespace

extern const InstructionSet MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _instruction_set);
const InstructionSet MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _instruction_set) = {
    MLIP_STRING(MLIP_INSTRUCTION_SET),
    supported,
    {forward<float>, backward<float>},
    {forward<double>, backward<double>},
};

}  // namespace mlip
