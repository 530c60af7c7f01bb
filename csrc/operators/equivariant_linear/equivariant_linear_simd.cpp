// The loops of `mlip::equivariant_linear`, compiled once per instruction set: see simd.h for what may not be used here.
#include "operators/equivariant_linear/equivariant_linear_kernels.h"
#include "operators/matrix_tile.h"
#include "operators/simd.h"

namespace mlip {
namespace {

template <typename T, int rows, typename V>
MLIP_INLINE void multiply_columns(const RowProduct<T>& product, const T* const* a, T* const* c, int64_t column, V v) {
  multiply_tile<T, rows>(a, product.b, product.columns, product.inner, c, column, {T(1), product.add}, v);
}

/// The columns that vectors of L values leave, by vectors of half the length, and so on.
template <typename T, int rows, int L>
MLIP_INLINE void multiply_rest(const RowProduct<T>& product, const T* const* a, T* const* c, int64_t column) {
  for (; column + L <= product.columns; column += L) multiply_columns<T, rows>(product, a, c, column, Vector<T, L>{});
  if constexpr (L > 1) multiply_rest<T, rows, L / 2>(product, a, c, column);
}

template <typename T, int rows>
void multiply_rows(const RowProduct<T>& product, const T* const* a, T* const* c) {
  constexpr int L = lanes<T>;
  int64_t column = 0;
  for (; column + 2 * L <= product.columns; column += 2 * L)
    multiply_columns<T, rows>(product, a, c, column, Pair<T, L>{});
  multiply_rest<T, rows, L>(product, a, c, column);
}

template <typename T>
void multiply(const RowProduct<T>& product, const int64_t* atoms, int64_t begin, int64_t end) {
  const T* a[tile_rows];
  T* c[tile_rows];
  int64_t k = begin, m = 0;
  for (int64_t left = (end - begin) * product.components; left > 0;) {
    const int rows = next_rows(left);
    for (int r = 0; r < rows; ++r) {
      const int64_t atom = atoms != nullptr ? atoms[k] : k;
      a[r] = product.a + atom * product.a_stride + m * product.inner;
      c[r] = product.c + atom * product.c_stride + m * product.columns;
      if (++m == product.components) {
        m = 0;
        ++k;
      }
    }
    with_rows(rows, [&](auto count) MLIP_INLINE_LAMBDA { multiply_rows<T, decltype(count)::value>(product, a, c); });
    left -= rows;
  }
}

}  // namespace

extern const EquivariantLinearKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _equivariant_linear_float32);
extern const EquivariantLinearKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _equivariant_linear_float64);
const EquivariantLinearKernels<float> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET,
                                                       _equivariant_linear_float32) = {multiply<float>};
const EquivariantLinearKernels<double> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET,
                                                        _equivariant_linear_float64) = {multiply<double>};

}  // namespace mlip
