// The loops of `mlip::symmetric_contraction`, compiled once per instruction set: see simd.h for what may not be used
// here.
//
// Channels are the outer loop and atoms the inner one, so that the coefficients of a vector of channels stay in the
// first cache while they serve one atom after the other.
#include "operators/simd.h"
#include "operators/symmetric_contraction/symmetric_contraction_kernels.h"

namespace mlip {
namespace {

/// Pairs of vectors serve where a pair lies within one block of coefficients; beyond it, the next block is elsewhere.
template <typename T>
constexpr bool with_pairs = 2 * lanes<T> <= channel_block;
static_assert(lanes<double> <= channel_block && lanes<float> <= channel_block, "a vector must lie within one block");

/// Channel u of the coefficients of an element; terms are channel_block values apart.
template <typename T>
MLIP_INLINE const T* coefficients_of(const SymmetricContractionProblem<T>& problem, int64_t type, int64_t u) {
  const int64_t block = type * problem.n_blocks + u / channel_block;
  return problem.coefficients + block * problem.n_terms * channel_block + u % channel_block;
}

/// x[k] for all components of an atom, and one behind them, as vectors at `x`.
template <typename T, typename V>
MLIP_INLINE void load_components(const SymmetricContractionProblem<T>& problem, int64_t atom, int64_t u, T* x) {
  const T* row = problem.features + atom * problem.n_components * problem.channels + u;
  for (int64_t k = 0; k < problem.n_components; ++k) V::store(x + k * V::width, V::load(row + k * problem.channels));
  for (int lane = 0; lane < V::width; ++lane) x[problem.n_components * V::width + lane] = T(1);
}

template <typename T, int degree>
void forward_range(const SymmetricContractionProblem<T>& problem, T* outputs, int64_t begin, int64_t end, T* scratch) {
  for_channels<T, with_pairs<T>>(problem.channels, [&](int64_t u, auto v) MLIP_INLINE_LAMBDA {
    using V = decltype(v);
    T* const x = scratch;
    T* const products = x + (problem.n_components + 1) * V::width;
    for (int64_t atom = begin; atom < end; ++atom) {
      load_components<T, V>(problem, atom, u, x);
      for (int64_t m = 0; m < problem.n_monomials; ++m) {
        const int64_t* factor = problem.factors + m * degree;
        auto product = V::load(x + factor[0] * V::width);
        for (int d = 1; d < degree; ++d) product = product * V::load(x + factor[d] * V::width);
        V::store(products + m * V::width, product);
      }
      const T* c = coefficients_of(problem, problem.types[atom], u);
      T* row = outputs + atom * problem.n_outputs * problem.channels + u;
      for (int64_t o = 0; o < problem.n_outputs; ++o) {
        // Two sums side by side: each waits for its own last addition only.
        typename V::type even{}, odd{};
        const int64_t last = problem.first_term[o + 1];
        int64_t t = problem.first_term[o];
        for (; t + 1 < last; t += 2) {
          even += V::load(c + t * channel_block) * V::load(products + problem.monomials[t] * V::width);
          odd += V::load(c + (t + 1) * channel_block) * V::load(products + problem.monomials[t + 1] * V::width);
        }
        if (t < last) even += V::load(c + t * channel_block) * V::load(products + problem.monomials[t] * V::width);
        V::store(row + o * problem.channels, even + odd);
      }
    }
  });
}

template <typename T, int degree>
void backward_range(const SymmetricContractionProblem<T>& problem, const T* output_gradients, T* feature_gradients,
                    int64_t begin, int64_t end, T* scratch) {
  for_channels<T, with_pairs<T>>(problem.channels, [&](int64_t u, auto v) MLIP_INLINE_LAMBDA {
    using V = decltype(v);
    T* const x = scratch;
    T* const gx = x + (problem.n_components + 1) * V::width;
    T* const slopes = gx + (problem.n_components + 1) * V::width;  // dE/d(monomial)
    for (int64_t atom = begin; atom < end; ++atom) {
      load_components<T, V>(problem, atom, u, x);
      for (int64_t k = 0; k <= problem.n_components; ++k) V::store(gx + k * V::width, typename V::type{});
      for (int64_t m = 0; m < problem.n_monomials; ++m) V::store(slopes + m * V::width, typename V::type{});
      const T* c = coefficients_of(problem, problem.types[atom], u);
      const T* g = output_gradients + atom * problem.n_outputs * problem.channels + u;
      for (int64_t o = 0; o < problem.n_outputs; ++o) {
        const auto gradient = V::load(g + o * problem.channels);
        for (int64_t t = problem.first_term[o]; t < problem.first_term[o + 1]; ++t) {
          T* slope = slopes + problem.monomials[t] * V::width;
          V::store(slope, V::load(slope) + V::load(c + t * channel_block) * gradient);
        }
      }
      for (int64_t m = 0; m < problem.n_monomials; ++m) {
        const int64_t* factor = problem.factors + m * degree;
        // before[d] = product of the factors up to d; slope becomes dE/d(before[d]), from the last factor to the first
        typename V::type before[degree];
        before[0] = V::load(x + factor[0] * V::width);
        for (int d = 1; d < degree - 1; ++d) before[d] = before[d - 1] * V::load(x + factor[d] * V::width);
        auto slope = V::load(slopes + m * V::width);
        for (int d = degree - 1; d > 0; --d) {
          T* target = gx + factor[d] * V::width;
          V::store(target, V::load(target) + slope * before[d - 1]);
          slope = slope * V::load(x + factor[d] * V::width);
        }
        T* target = gx + factor[0] * V::width;
        V::store(target, V::load(target) + slope);
      }
      T* row = feature_gradients + atom * problem.n_components * problem.channels + u;
      for (int64_t k = 0; k < problem.n_components; ++k)
        V::store(row + k * problem.channels, V::load(gx + k * V::width));
    }
  });
}

template <typename T>
void forward(const SymmetricContractionProblem<T>& problem, T* outputs, int64_t begin, int64_t end, T* scratch) {
  switch (problem.degree) {
    case 1:
      return forward_range<T, 1>(problem, outputs, begin, end, scratch);
    case 2:
      return forward_range<T, 2>(problem, outputs, begin, end, scratch);
    case 3:
      return forward_range<T, 3>(problem, outputs, begin, end, scratch);
    default:
      return forward_range<T, highest_degree>(problem, outputs, begin, end, scratch);
  }
}

template <typename T>
void backward(const SymmetricContractionProblem<T>& problem, const T* output_gradients, T* feature_gradients,
              int64_t begin, int64_t end, T* scratch) {
  switch (problem.degree) {
    case 1:
      return backward_range<T, 1>(problem, output_gradients, feature_gradients, begin, end, scratch);
    case 2:
      return backward_range<T, 2>(problem, output_gradients, feature_gradients, begin, end, scratch);
    case 3:
      return backward_range<T, 3>(problem, output_gradients, feature_gradients, begin, end, scratch);
    default:
      return backward_range<T, highest_degree>(problem, output_gradients, feature_gradients, begin, end, scratch);
  }
}

}  // namespace

extern const SymmetricContractionKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _symmetric_contraction_float32);
extern const SymmetricContractionKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _symmetric_contraction_float64);
const SymmetricContractionKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _symmetric_contraction_float32) = {
    forward<float>, backward<float>};
const SymmetricContractionKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _symmetric_contraction_float64) = {
    forward<double>, backward<double>};

}  // namespace mlip
