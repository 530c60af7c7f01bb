// CPU kernels of the operator `mlip::token_attention`, free of torch so that they compile in seconds: one atom after
// the other. token_attention.cpp has the formula.
//
// token_attention_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

namespace mlip {

/// The sizes of one call and what it reads. The tokens of an atom are its own row and those of its edges.
template <typename T>
struct TokenAttentionProblem {
  std::int64_t n_atoms;
  std::int64_t n_heads;
  std::int64_t width;  ///< of a head
  T scale;
  const std::int64_t* first;  ///< [n_atoms + 1]: the edges of each atom
  const T* projected;         ///< [n_atoms + n_edges, 3, n_heads, width]: queries, keys, values
  const T* log_weights;       ///< [n_edges]
};

/// Values of working memory for atoms of at most `most_tokens` tokens, for either kernel.
template <typename T>
std::int64_t scratch_size(const TokenAttentionProblem<T>& problem, std::int64_t most_tokens) {
  constexpr std::int64_t widest_vector = 64 / sizeof(T);
  const std::int64_t channels = problem.n_heads * problem.width, padded = most_tokens + widest_vector;
  return most_tokens * (3 + 1 + 3) * channels          // rows of tokens and of gradients
         + 2 * padded * (most_tokens + problem.width)  // probabilities, queries, and their gradients
         + most_tokens * widest_vector;                // sums whose lanes are apart
}

/// The kernels of one instruction set for one type, for the atoms from `begin` to `end` - 1.
template <typename T>
struct TokenAttentionKernels {
  /// Writes the rows of these atoms' tokens in attended [n_atoms + n_edges, n_heads, width].
  void (*attend)(const TokenAttentionProblem<T>& problem, std::int64_t begin, std::int64_t end, T* attended,
                 T* scratch);
  /// Writes the gradients of these atoms' tokens.
  void (*attend_backward)(const TokenAttentionProblem<T>& problem, std::int64_t begin, std::int64_t end,
                          const T* of_attended, T* of_projected, T* of_log_weights, T* scratch);
};

}  // namespace mlip
