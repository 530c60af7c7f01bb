// The loops of `mlip::gated_addition`, compiled once per instruction set: see simd.h for what may not be used here.
#include "operators/gated_addition/gated_addition_kernels.h"
#include "operators/simd.h"
#include "operators/vector_functions.h"

namespace mlip {
namespace {

template <typename T>
void add(const GatedRows<T>& rows, const T* values_and_gates, T* sums) {
  const int64_t width = rows.n_channels;
  for (int64_t k = 0; k < rows.n; ++k, values_and_gates += 2 * width) {
    T* const sum = sums + rows.places[k] * width;
    for_channels<T, false>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const auto value = V::load(values_and_gates + u) + V::load(rows.biases + u);
      const auto gate = V::load(values_and_gates + width + u) + V::load(rows.biases + width + u);
      V::store(sum + u, V::load(sum + u) + value * sigmoid<T, V>(value) * sigmoid<T, V>(gate));
    });
  }
}

template <typename T>
void add_backward(const GatedRows<T>& rows, const T* of_sums, T* values_and_gates) {
  const int64_t width = rows.n_channels;
  for (int64_t k = 0; k < rows.n; ++k, values_and_gates += 2 * width) {
    const T* const of_sum = of_sums + rows.places[k] * width;
    for_channels<T, false>(width, [&](int64_t u, auto vector) MLIP_INLINE_LAMBDA {
      using V = decltype(vector);
      const auto value = V::load(values_and_gates + u) + V::load(rows.biases + u);
      const auto gate = V::load(values_and_gates + width + u) + V::load(rows.biases + width + u);
      const auto s = sigmoid<T, V>(value), g = sigmoid<T, V>(gate), gradient = V::load(of_sum + u) * g;
      V::store(values_and_gates + u, gradient * slope_of_silu<T>(value, s));
      V::store(values_and_gates + width + u, gradient * value * s * (T(1) - g));
    });
  }
}

}  // namespace

#define MLIP_GATED_ADDITION_KERNELS(type, name)                                                           \
  extern const GatedAdditionKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _gated_addition_##name); \
  const GatedAdditionKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _gated_addition_##name) = {     \
      add<type>, add_backward<type>};
MLIP_GATED_ADDITION_KERNELS(float, float32)
MLIP_GATED_ADDITION_KERNELS(double, float64)

}  // namespace mlip
