// Products of packed matrices, compiled once per instruction set: see simd.h for what may not be used here.
#include "operators/matrix_tile.h"
#include "operators/packed_product_kernels.h"
#include "operators/simd.h"

namespace mlip {
namespace {

template <typename T>
constexpr int64_t panel_columns = 2 * lanes<T>;

/// Rows of a block of the matrix: a panel of them takes half of the first cache, 32 kB, whose rest is for rows of a.
template <typename T>
constexpr int64_t block_rows = 16384 / (panel_columns<T> * int64_t(sizeof(T)));

/// body(first row of a block, number of its rows)
template <typename T, typename Body>
MLIP_INLINE void for_blocks(int64_t inner, Body&& body) {
  for (int64_t first = 0; first < inner; first += block_rows<T>)
    body(first, inner - first < block_rows<T> ? inner - first : block_rows<T>);
}

template <typename T>
void pack(const MatrixToPack<T>& matrix, int64_t begin, int64_t end, T* packed) {
  constexpr int64_t N = panel_columns<T>;
  const int64_t width = (matrix.columns + N - 1) / N * N;
  for_blocks<T>(matrix.inner, [&](int64_t first, int64_t n_rows) MLIP_INLINE_LAMBDA {
    for (int64_t panel = begin; panel < end; ++panel) {
      T* to = packed + first * width + panel * n_rows * N;
      const int64_t left = matrix.columns - panel * N, n = left < N ? left : N;
      const T* from = matrix.data + first * matrix.row_stride + panel * N * matrix.column_stride;
      for (int64_t k = 0; k < n_rows; ++k, from += matrix.row_stride, to += N) {
        for (int64_t u = 0; u < n; ++u) to[u] = from[u * matrix.column_stride];
        for (int64_t u = n; u < N; ++u) to[u] = T(0);
      }
    }
  });
}

/// The columns of a result that a panel has, which may be fewer than those of a tile.
template <typename T, int rows>
MLIP_INLINE void multiply_panel(const T* const* a, const T* panel, int64_t n_rows, T* const* c, int64_t columns,
                                TileEnd<T> end) {
  constexpr int64_t N = panel_columns<T>;
  const Pair<T, lanes<T>> vectors;
  if (columns >= N) return multiply_tile<T, rows>(a, panel, N, n_rows, c, 0, end, vectors);
  T tile[rows * N];
  T* to[rows];
  for (int r = 0; r < rows; ++r) to[r] = tile + r * N;
  multiply_tile<T, rows>(a, panel, N, n_rows, to, 0, {end.factor, false}, vectors);
  for (int r = 0; r < rows; ++r)
    for (int64_t u = 0; u < columns; ++u) c[r][u] = to[r][u] + (end.add ? c[r][u] : T(0));
}

template <typename T>
void multiply(const PackedProduct<T>& product) {
  constexpr int64_t N = panel_columns<T>;
  const T* panel = product.b;
  if (product.inner == 0 && !product.add)
    for (int64_t i = 0; i < product.n; ++i)
      for (int64_t u = 0; u < product.columns; ++u) product.c[i * product.c_stride + u] = T(0);
  for_blocks<T>(product.inner, [&](int64_t first, int64_t n_rows) MLIP_INLINE_LAMBDA {
    const TileEnd<T> end{product.factor, product.add || first > 0};
    for (int64_t column = 0; column < product.columns; column += N, panel += n_rows * N)
      for (int64_t i = 0; i < product.n;) {
        const int rows = next_rows(product.n - i);
        with_rows(rows, [&](auto count) MLIP_INLINE_LAMBDA {
          constexpr int n = decltype(count)::value;
          const T* a[n];
          T* c[n];
          for (int r = 0; r < n; ++r) {
            a[r] = product.a + (i + r) * product.a_stride + first;
            c[r] = product.c + (i + r) * product.c_stride + column;
          }
          multiply_panel<T, n>(a, panel, n_rows, c, product.columns - column, end);
        });
        i += rows;
      }
  });
}

}  // namespace

#define MLIP_PACKED_PRODUCT_KERNELS(type, name)                                                           \
  extern const PackedProductKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _packed_product_##name); \
  const PackedProductKernels<type> MLIP_CONCATENATE(MLIP_INSTRUCTION_SET, _packed_product_##name) = {     \
      panel_columns<type>, pack<type>, multiply<type>};
MLIP_PACKED_PRODUCT_KERNELS(float, float32)
MLIP_PACKED_PRODUCT_KERNELS(double, float64)

}  // namespace mlip
