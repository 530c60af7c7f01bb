// The loops of `mlip::equivariant_linear`, compiled once per instruction set: see simd.h for what may not be used here.
//
// A tile of the result, some rows by two vectors of columns, stays in registers while it adds up over the inner index.
#include "operators/equivariant_linear/equivariant_linear_kernels.h"
#include "operators/simd.h"

namespace mlip {
namespace {

/// Rows of a tile: sums, two vectors of the matrix and one value of a row fit the registers (32 of AVX-512, else 16).
constexpr int tile_rows = MLIP_VECTOR_BYTES == 64 ? 8 : 6;

template <typename T, int rows, typename V>
MLIP_INLINE void multiply_tile(const RowProduct<T>& product, const T* const* a, T* const* c, int64_t column, V) {
  typename V::type sums[rows];
  for (int r = 0; r < rows; ++r) sums[r] = typename V::type{};
  const T* b = product.b + column;
  for (int64_t k = 0; k < product.inner; ++k, b += product.columns) {
    const auto values = V::load(b);
    for (int r = 0; r < rows; ++r) sums[r] += values * a[r][k];
  }
  // Last, so that terms do not round off against a large number that is there, such as the energy of a lone atom.
  if (product.add)
    for (int r = 0; r < rows; ++r) sums[r] += V::load(c[r] + column);
  for (int r = 0; r < rows; ++r) V::store(c[r] + column, sums[r]);
}

/// The columns that vectors of L values leave, by vectors of half the length, and so on.
template <typename T, int rows, int L>
MLIP_INLINE void multiply_rest(const RowProduct<T>& product, const T* const* a, T* const* c, int64_t column) {
  for (; column + L <= product.columns; column += L) multiply_tile<T, rows>(product, a, c, column, Vector<T, L>{});
  if constexpr (L > 1) multiply_rest<T, rows, L / 2>(product, a, c, column);
}

template <typename T, int rows>
void multiply_rows(const RowProduct<T>& product, const T* const* a, T* const* c) {
  constexpr int L = lanes<T>;
  int64_t column = 0;
  for (; column + 2 * L <= product.columns; column += 2 * L)
    multiply_tile<T, rows>(product, a, c, column, Pair<T, L>{});
  multiply_rest<T, rows, L>(product, a, c, column);
}

template <typename T>
void multiply(const RowProduct<T>& product, const int64_t* atoms, int64_t begin, int64_t end) {
  const T* a[tile_rows];
  T* c[tile_rows];
  int64_t k = begin, m = 0;
  for (int64_t left = (end - begin) * product.components; left > 0;) {
    const int rows = left >= tile_rows ? tile_rows : left >= 4 ? 4 : left >= 2 ? 2 : 1;
    for (int r = 0; r < rows; ++r) {
      const int64_t atom = atoms != nullptr ? atoms[k] : k;
      a[r] = product.a + atom * product.a_stride + m * product.inner;
      c[r] = product.c + atom * product.c_stride + m * product.columns;
      if (++m == product.components) {
        m = 0;
        ++k;
      }
    }
    if (rows == tile_rows)
      multiply_rows<T, tile_rows>(product, a, c);
    else if (rows == 4)
      multiply_rows<T, 4>(product, a, c);
    else if (rows == 2)
      multiply_rows<T, 2>(product, a, c);
    else
      multiply_rows<T, 1>(product, a, c);
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
