// A tile of a matrix product in registers, for source files that are compiled once per instruction set: simd.h says
// what may not be used there.
//
// A tile is some rows of the result by two vectors of its columns. It stays in registers while it adds up over the
// inner index, where each value of a row is spread over the lanes of a vector.
#pragma once

#include "operators/simd.h"

namespace mlip {
namespace {

/// Rows of a tile: sums, two vectors of the matrix and one value of a row fit the registers (32 of AVX-512, else 16).
constexpr int tile_rows = MLIP_VECTOR_BYTES == 64 ? 8 : 6;

template <int n>
struct Constant {
  static constexpr int value = n;
};

/// What is done with the sums of a tile.
template <typename T>
struct TileEnd {
  T factor;  ///< of the sums
  bool add;  ///< to what the result holds, or overwrite it
};

/// c[r][column + lane] (+)= factor Σ_k a[r][k * a_step] b[k * b_stride + column + lane] for a vector V of columns.
template <typename T, int rows, typename V>
MLIP_INLINE void multiply_tile(const T* const* a, const T* b, int64_t b_stride, int64_t inner, T* const* c,
                               int64_t column, TileEnd<T> end, V, int64_t a_step = 1) {
  typename V::type sums[rows];
  for (int r = 0; r < rows; ++r) sums[r] = typename V::type{};
  b += column;
  for (int64_t k = 0; k < inner; ++k, b += b_stride) {
    const auto values = V::load(b);
    for (int r = 0; r < rows; ++r) sums[r] += values * a[r][k * a_step];
  }
  if (end.factor != T(1))
    for (int r = 0; r < rows; ++r) sums[r] = sums[r] * end.factor;
  // Last, so that terms do not round off against a large number that is there, such as the energy of a lone atom.
  if (end.add)
    for (int r = 0; r < rows; ++r) sums[r] += V::load(c[r] + column);
  for (int r = 0; r < rows; ++r) V::store(c[r] + column, sums[r]);
}

/// How many rows of `left` the next tile takes.
MLIP_INLINE int next_rows(int64_t left) { return left >= tile_rows ? tile_rows : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

/// body(number of rows as a constant): a number that next_rows gave.
template <typename Body>
MLIP_INLINE void with_rows(int rows, Body&& body) {
  if (rows == tile_rows)
    body(Constant<tile_rows>{});
  else if (rows == 4)
    body(Constant<4>{});
  else if (rows == 2)
    body(Constant<2>{});
  else
    body(Constant<1>{});
}

}  // namespace
}  // namespace mlip
