// The loops of `mlip::token_attention`, compiled once per instruction set: see simd.h for what may not be used here.
//
// Scores stand with keys as rows and queries in the lanes of vectors, [n_tokens, n_padded]. The sums and maxima of the
// softmax over the keys then need no exchange between lanes. Lanes beyond the last query hold numbers that nobody
// reads.
#include "operators/matrix_tile.h"
#include "operators/simd.h"
#include "operators/token_attention/token_attention_kernels.h"
#include "operators/vector_functions.h"

namespace mlip {
namespace {

/// c[i][:] = factor Σ_k a[i * a_stride + k * a_step] b[k][:] for n rows. Strides in values, not bytes.
template <typename T>
struct Product {
  int64_t n, columns, inner;
  const T* a;
  int64_t a_stride, a_step;
  const T* b;
  int64_t b_stride;
  T* c;
  int64_t c_stride;
  T factor;
};

template <typename T>
void multiply(const Product<T>& product) {
  for_channels<T, true>(product.columns, [&](int64_t column, auto vector) MLIP_INLINE_LAMBDA {
    for (int64_t i = 0; i < product.n;) {
      const int rows = next_rows(product.n - i);
      with_rows(rows, [&](auto count) MLIP_INLINE_LAMBDA {
        constexpr int n = decltype(count)::value;
        const T* a[n];
        T* c[n];
        for (int r = 0; r < n; ++r) {
          a[r] = product.a + (i + r) * product.a_stride;
          c[r] = product.c + (i + r) * product.c_stride;
        }
        multiply_tile<T, n>(a, product.b, product.b_stride, product.inner, c, column, {product.factor, false}, vector,
                            product.a_step);
      });
      i += rows;
    }
  });
}

template <typename T>
MLIP_INLINE void copy(const T* from, int64_t n, T* to) {
  __builtin_memcpy(to, from, n * sizeof(T));
}

/// The tokens of one atom: their number, where their rows are, and the memory of what is made of them.
template <typename T>
struct Tokens {
  const TokenAttentionProblem<T>& problem;
  int64_t channels = problem.n_heads * problem.width;
  int64_t n = 0, n_padded = 0;
  int64_t atom = 0, edge = 0;   ///< the atom, and its first edge
  T *rows, *of_rows, *results;  ///< [n, 3 channels], [n, 3 channels], [n, channels]
  T *scores, *of_scores;        ///< [n, n_padded]
  T *columns, *of_columns;      ///< [width, n_padded]: queries and gradients of results of one head
  T* partial;                   ///< [n, lanes]

  MLIP_INLINE explicit Tokens(const TokenAttentionProblem<T>& of) : problem(of) {}

  MLIP_INLINE void take(int64_t which, T* scratch) {
    constexpr int64_t L = lanes<T>;
    atom = which;
    edge = problem.first[atom];
    n = 1 + problem.first[atom + 1] - edge;
    n_padded = (n + L - 1) / L * L;
    rows = scratch;
    of_rows = rows + n * 3 * channels;
    results = of_rows + n * 3 * channels;
    scores = results + n * channels;
    of_scores = scores + n * n_padded;
    columns = of_scores + n * n_padded;
    of_columns = columns + problem.width * n_padded;
    partial = of_columns + problem.width * n_padded;
    gather(problem.projected, 3 * channels, rows);
  }

  /// The atom's row, then those of its edges.
  MLIP_INLINE void gather(const T* all, int64_t row, T* to) const {
    copy(all + atom * row, row, to);
    copy(all + (problem.n_atoms + edge) * row, (n - 1) * row, to + row);
  }
  MLIP_INLINE void scatter(const T* from, int64_t row, T* all) const {
    copy(from, row, all + atom * row);
    copy(from + row, (n - 1) * row, all + (problem.n_atoms + edge) * row);
  }

  /// to[u][i] = from[i * stride + u], and 0 beyond the last token.
  MLIP_INLINE void transpose(const T* from, int64_t stride, T* to) const {
    for (int64_t u = 0; u < problem.width; ++u, to += n_padded) {
      for (int64_t i = 0; i < n; ++i) to[i] = from[i * stride + u];
      for (int64_t i = n; i < n_padded; ++i) to[i] = T(0);
    }
  }

  MLIP_INLINE const T* queries(int64_t head) const { return rows + head * problem.width; }
  MLIP_INLINE const T* keys(int64_t head) const { return queries(head) + channels; }
  MLIP_INLINE const T* values(int64_t head) const { return queries(head) + 2 * channels; }

  /// scores[j][i]: the probability with which query i attends to key j.
  void attend(int64_t head) const {
    using V = Vector<T, lanes<T>>;
    transpose(queries(head), 3 * channels, columns);
    multiply<T>(
        {n, n_padded, problem.width, keys(head), 3 * channels, 1, columns, n_padded, scores, n_padded, problem.scale});
    for (int64_t i = 0; i < n_padded; i += lanes<T>) {
      auto largest = V::load(scores + i);  // of the atom, whose weight is 1
      for (int64_t j = 1; j < n; ++j) {
        const auto score = V::load(scores + j * n_padded + i) + problem.log_weights[edge + j - 1];
        V::store(scores + j * n_padded + i, score);
        largest = score > largest ? score : largest;
      }
      typename V::type sum{};
      for (int64_t j = 0; j < n; ++j) {
        const auto e = exponential<T, V>(V::load(scores + j * n_padded + i) - largest);
        const auto value = e.scale + e.scale * e.rest;
        V::store(scores + j * n_padded + i, value);
        sum += value;
      }
      const auto factor = T(1) / sum;
      for (int64_t j = 0; j < n; ++j) V::store(scores + j * n_padded + i, V::load(scores + j * n_padded + i) * factor);
    }
  }

  /// of_scores from the gradient of probabilities to that of scores; adds it to `partial`, too.
  void softmax_backward() const {
    using V = Vector<T, lanes<T>>;
    for (int64_t i = 0; i < n_padded; i += lanes<T>) {
      typename V::type mean{};
      for (int64_t j = 0; j < n; ++j)
        mean += V::load(scores + j * n_padded + i) * V::load(of_scores + j * n_padded + i);
      for (int64_t j = 0; j < n; ++j) {
        const auto gradient = V::load(scores + j * n_padded + i) * (V::load(of_scores + j * n_padded + i) - mean);
        V::store(of_scores + j * n_padded + i, gradient);
        V::store(partial + j * lanes<T>, V::load(partial + j * lanes<T>) + gradient);
      }
    }
  }
};

template <typename T>
void attend(const TokenAttentionProblem<T>& problem, int64_t begin, int64_t end, T* attended, T* scratch) {
  Tokens<T> tokens(problem);
  const int64_t channels = tokens.channels, width = problem.width;
  for (int64_t atom = begin; atom < end; ++atom) {
    tokens.take(atom, scratch);
    for (int64_t h = 0; h < problem.n_heads; ++h) {
      tokens.attend(h);
      multiply<T>({tokens.n, width, tokens.n, tokens.scores, 1, tokens.n_padded, tokens.values(h), 3 * channels,
                   tokens.results + h * width, channels, T(1)});
    }
    tokens.scatter(tokens.results, channels, attended);
  }
}

template <typename T>
void attend_backward(const TokenAttentionProblem<T>& problem, int64_t begin, int64_t end, const T* of_attended,
                     T* of_projected, T* of_log_weights, T* scratch) {
  Tokens<T> tokens(problem);
  const int64_t channels = tokens.channels, width = problem.width;
  for (int64_t atom = begin; atom < end; ++atom) {
    tokens.take(atom, scratch);
    const int64_t n = tokens.n, n_padded = tokens.n_padded;
    tokens.gather(of_attended, channels, tokens.results);
    for (int64_t k = 0; k < n * lanes<T>; ++k) tokens.partial[k] = T(0);
    for (int64_t h = 0; h < problem.n_heads; ++h) {
      tokens.attend(h);
      const T* const of_results = tokens.results + h * width;
      T* const of_queries = tokens.of_rows + h * width;
      tokens.transpose(of_results, channels, tokens.of_columns);
      multiply<T>({n, n_padded, width, tokens.values(h), 3 * channels, 1, tokens.of_columns, n_padded, tokens.of_scores,
                   n_padded, T(1)});
      multiply<T>({n, width, n, tokens.scores, n_padded, 1, of_results, channels, of_queries + 2 * channels,
                   3 * channels, T(1)});
      tokens.softmax_backward();
      multiply<T>({n, width, n, tokens.of_scores, n_padded, 1, tokens.queries(h), 3 * channels, of_queries + channels,
                   3 * channels, problem.scale});
      multiply<T>({n, width, n, tokens.of_scores, 1, n_padded, tokens.keys(h), 3 * channels, of_queries, 3 * channels,
                   problem.scale});
    }
    tokens.scatter(tokens.of_rows, 3 * channels, of_projected);
    sum_all_lanes(tokens.partial + lanes<T>, n - 1, of_log_weights + tokens.edge);
  }
}

}  // namespace

#define MLIP_TOKEN_ATTENTION_KERNELS(type, name)                                                            \
  extern const TokenAttentionKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _token_attention_##name); \
  const TokenAttentionKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _token_attention_##name) = {     \
      attend<type>, attend_backward<type>};
MLIP_TOKEN_ATTENTION_KERNELS(float, float32)
MLIP_TOKEN_ATTENTION_KERNELS(double, float64)

}  // namespace mlip
