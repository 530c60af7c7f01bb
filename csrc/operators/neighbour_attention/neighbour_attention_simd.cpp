// The loops of `mlip::neighbour_attention`, compiled once per instruction set: see simd.h for what may not be used
// here.
#include "operators/neighbour_attention/neighbour_attention_kernels.h"
#include "operators/radial_weights.h"
#include "operators/simd.h"
#include "operators/vector_functions.h"

namespace mlip {
namespace {

/// body(head, its first channel, its number of channels) over both kinds of heads.
template <typename T, typename Body>
MLIP_INLINE void for_heads(const AttentionProblem<T>& problem, Body&& body) {
  const int64_t width = problem.n_features / problem.n_heads, vector_width = problem.n_features / problem.n_degrees;
  for (int64_t h = 0; h < problem.n_heads; ++h) body(h, h * width, width);
  for (int64_t l = 0; l < problem.n_degrees; ++l)
    body(problem.n_heads + l, problem.n_features + l * vector_width, vector_width);
}

/// sums[k] = Σ_{m of degree k} terms(m)
template <typename T, typename Terms>
MLIP_INLINE void sum_degrees(const AttentionProblem<T>& problem, T* sums, Terms&& terms) {
  for (int64_t l = 0; l < problem.n_degrees; ++l) {
    T sum = 0;
    for (int64_t m = problem.first[l]; m < problem.first[l + 1]; ++m) sum += terms(m);
    sums[l] = sum;
  }
}

template <typename T>
void weigh(const AttentionProblem<T>& problem, const AttentionBlock<T>& block, T* filters, T* slopes) {
  for (int64_t e = 0; e < block.n; ++e, filters += problem.n_weights) {
    const int64_t edge = block.edges[e];
    if (problem.table == nullptr)
      for_channels<T, true>(problem.n_weights, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
        using V = decltype(vector);
        V::store(filters + u, V::load(problem.radial + edge * problem.n_weights + u));
      });
    else if (slopes == nullptr)
      radial_weights(problem, edge, filters);
    else
      radial_weights(problem, edge, filters, slopes + e * problem.n_weights);
  }
}

template <typename T>
void hide(const AttentionProblem<T>& problem, const AttentionBlock<T>& block, T* sums, T* hidden, T* scratch) {
  T* const squares = scratch;
  for (int64_t e = 0; e < block.n; ++e, sums += problem.n_hidden, hidden += problem.n_hidden) {
    const T* const own = problem.vectors + block.centres[e] * problem.n_components;
    const T* const other = problem.vectors + block.neighbours[e] * problem.n_components;
    sum_degrees(problem, squares, [&](int64_t m) MLIP_INLINE_LAMBDA {
      const T difference = other[m] - own[m];
      return problem.factors[m] * difference * difference;
    });
    for_channels<T, false>(problem.n_hidden, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      auto sum = V::load(problem.hidden_bias + u);
      for (int64_t l = 0; l < problem.n_degrees; ++l)
        sum += V::load(problem.hidden_matrix + l * problem.n_hidden + u) * squares[l];
      V::store(sums + u, sum);
      V::store(hidden + u, sum * sigmoid<T, V>(sum));
    });
  }
}

template <typename T>
void hide_backward(const AttentionProblem<T>& problem, const AttentionBlock<T>& block, const T* sums,
                   const T* of_hidden, T* of_vectors, T* scratch) {
  constexpr int64_t L = lanes<T>;
  T* const partial = scratch;
  T* const of_squares = partial + problem.n_degrees * L;
  for (int64_t e = 0; e < block.n; ++e, sums += problem.n_hidden, of_hidden += problem.n_hidden) {
    for (int64_t k = 0; k < problem.n_degrees * L; ++k) partial[k] = 0;
    for_channels<T, false>(problem.n_hidden, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      using Whole = Vector<T, lanes<T>>;
      const auto x = V::load(sums + u);
      const auto s = sigmoid<T, V>(x);
      const auto of_sum = V::load(of_hidden + u) * (s * (T(1) + x * (T(1) - s)));
      for (int64_t l = 0; l < problem.n_degrees; ++l) {
        auto partial_sums = Whole::load(partial + l * L);
        V::add_to(partial_sums, V::load(problem.hidden_matrix + l * problem.n_hidden + u) * of_sum);
        Whole::store(partial + l * L, partial_sums);
      }
    });
    sum_all_lanes(partial, problem.n_degrees, of_squares);
    const int64_t centre = block.centres[e] * problem.n_components;
    const int64_t neighbour = block.neighbours[e] * problem.n_components;
    for (int64_t l = 0; l < problem.n_degrees; ++l)
      for (int64_t m = problem.first[l]; m < problem.first[l + 1]; ++m) {
        const T difference = problem.vectors[neighbour + m] - problem.vectors[centre + m];
        const T gradient = T(2) * problem.factors[m] * difference * of_squares[l];
        of_vectors[neighbour + m] += gradient;
        of_vectors[centre + m] -= gradient;
      }
  }
}

/// attention[head] = Σ_u q[u] k[u] w[u] of an edge, before the cutoff.
template <typename T>
MLIP_INLINE void attention_of(const AttentionProblem<T>& problem, const T* queries, const T* keys, const T* filters,
                              T* attention, T* partial) {
  constexpr int64_t L = lanes<T>;
  for_heads(problem, [&](int64_t head, int64_t first, int64_t width) MLIP_INLINE_LAMBDA {
    typename Vector<T, L>::type sum{};
    const T *const q = queries + first, *const k = keys + first, *const w = filters + first;
    for_channels<T, true>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      V::add_to(sum, V::load(q + u) * V::load(k + u) * V::load(w + u));
    });
    Vector<T, L>::store(partial + head * L, sum);
  });
  sum_all_lanes(partial, problem.n_heads + problem.n_degrees, attention);
}

template <typename T>
void attend(const AttentionProblem<T>& problem, const AttentionBlock<T>& block, const T* filters, T* messages,
            T* vector_messages, T* scratch) {
  const int64_t n_features = problem.n_features, width = n_features / problem.n_heads;
  T* const partial = scratch;
  T* const attention = partial + (problem.n_heads + problem.n_degrees) * lanes<T>;
  for (int64_t e = 0; e < block.n; ++e, filters += 2 * n_features) {
    const int64_t edge = block.edges[e], centre = block.centres[e], neighbour = block.neighbours[e];
    attention_of(problem, problem.queries + centre * 2 * n_features, problem.keys + neighbour * 2 * n_features, filters,
                 attention, partial);
    for (int64_t h = 0; h < problem.n_heads; ++h) {
      const T factor = attention[h] * block.cutoffs[edge];
      const T* const values = problem.values + neighbour * n_features + h * width;
      T* const sums = messages + centre * n_features + h * width;
      for_channels<T, true>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
        using V = decltype(vector);
        V::store(sums + u, V::load(sums + u) + V::load(values + u) * factor);
      });
    }
    const T* const harmonics = block.harmonics + edge * problem.n_components;
    T* const sums = vector_messages + centre * problem.n_components;
    for (int64_t l = 0; l < problem.n_degrees; ++l) {
      const T factor = attention[problem.n_heads + l] * block.cutoffs[edge];
      for (int64_t m = problem.first[l]; m < problem.first[l + 1]; ++m) sums[m] += factor * harmonics[m];
    }
  }
}

template <typename T>
void attend_backward(const AttentionProblem<T>& problem, const AttentionBlock<T>& block,
                     const AttentionGradients<T>& gradients, T* filters, const T* slopes, T* scratch) {
  constexpr int64_t L = lanes<T>;
  const int64_t n_features = problem.n_features, width = n_features / problem.n_heads;
  const int64_t n_heads = problem.n_heads, n_all = n_heads + problem.n_degrees;
  T* const partial = scratch;
  T* const attention = partial + n_all * L;
  T* const of_attention = attention + n_all;
  for (int64_t e = 0; e < block.n; ++e, filters += 2 * n_features) {
    const int64_t edge = block.edges[e], centre = block.centres[e], neighbour = block.neighbours[e];
    const int64_t own = centre * 2 * n_features, other = neighbour * 2 * n_features;
    const T* const queries = problem.queries + own;
    const T* const keys = problem.keys + other;
    attention_of(problem, queries, keys, filters, attention, partial);

    const T cutoff = block.cutoffs[edge];
    for (int64_t h = 0; h < n_heads; ++h) {
      const T* const of_sums = gradients.messages + centre * n_features + h * width;
      const T* const values = problem.values + neighbour * n_features + h * width;
      T* const of_values = gradients.values ? gradients.values + neighbour * n_features + h * width : nullptr;
      const T factor = attention[h] * cutoff;
      typename Vector<T, L>::type sum{};
      for_channels<T, true>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
        using V = decltype(vector);
        const auto gradient = V::load(of_sums + u);
        V::add_to(sum, gradient * V::load(values + u));
        if (of_values) V::store(of_values + u, V::load(of_values + u) + gradient * factor);
      });
      Vector<T, L>::store(partial + h * L, sum);
    }
    sum_all_lanes(partial, n_heads, of_attention);
    const T* const of_sums = gradients.vector_messages + centre * problem.n_components;
    const T* const harmonics = block.harmonics + edge * problem.n_components;
    T* const of_harmonics = gradients.harmonics + edge * problem.n_components;
    sum_degrees(problem, of_attention + n_heads,
                [&](int64_t m) MLIP_INLINE_LAMBDA { return of_sums[m] * harmonics[m]; });
    for (int64_t l = 0; l < problem.n_degrees; ++l)
      for (int64_t m = problem.first[l]; m < problem.first[l + 1]; ++m)
        of_harmonics[m] = of_sums[m] * attention[n_heads + l] * cutoff;
    T of_cutoff = 0;
    for (int64_t h = 0; h < n_all; ++h) of_cutoff += of_attention[h] * attention[h];
    gradients.cutoffs[edge] = of_cutoff;

    T* const of_queries = gradients.queries ? gradients.queries + own : nullptr;
    T* const of_keys = gradients.keys ? gradients.keys + other : nullptr;
    const T* const slope = slopes ? slopes + e * problem.n_weights : nullptr;
    T* const of_weights = slopes ? nullptr : gradients.radial + edge * problem.n_weights;
    typename Vector<T, L>::type of_distance{};
    for_heads(problem, [&](int64_t head, int64_t first, int64_t head_width) MLIP_INLINE_LAMBDA {
      const T factor = of_attention[head] * cutoff;
      for_channels<T, true>(head_width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
        using V = decltype(vector);
        const int64_t at = first + u;
        const auto query = V::load(queries + at) * factor, key = V::load(keys + at);
        if (of_queries) {
          const auto filter = V::load(filters + at);
          V::store(of_queries + at, V::load(of_queries + at) + filter * key * factor);
          V::store(of_keys + at, V::load(of_keys + at) + filter * query);
        }
        const auto of_filter = query * key;
        V::store(filters + at, of_filter);
        if (slope)
          V::add_to(of_distance, of_filter * V::load(slope + at));
        else
          V::store(of_weights + at, of_filter);
      });
    });
    if (slope) gradients.radial[edge] = sum_of_lanes<T>(of_distance);
  }
}

}  // namespace

#define MLIP_ATTENTION_KERNELS(type, name)                                                                          \
  extern const NeighbourAttentionKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _neighbour_attention_##name); \
  const NeighbourAttentionKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _neighbour_attention_##name) = {     \
      weigh<type>, hide<type>, hide_backward<type>, attend<type>, attend_backward<type>};
MLIP_ATTENTION_KERNELS(float, float32)
MLIP_ATTENTION_KERNELS(double, float64)

}  // namespace mlip
