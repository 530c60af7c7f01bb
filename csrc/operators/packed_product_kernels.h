// Products of a matrix that many rows are multiplied with, free of torch so that they compile in seconds.
//
// The matrix is packed first: cut into blocks of rows that a tile of the result reads from the first cache, and these
// into panels as wide as a tile, whose values lie one after the other. torch's own products, MKL's, pack it again for
// each block of edges, and do not use the widest vectors of every processor.
//
// packed_product_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs. packed_matrix.h
// is what operators use.
#pragma once

#include <cstdint>

namespace mlip {

/// A matrix [inner, columns] to pack: its value at k and j is data[k * row_stride + j * column_stride].
template <typename T>
struct MatrixToPack {
  const T* data;
  std::int64_t row_stride, column_stride;
  std::int64_t inner, columns;
};

/// c[i][:] (+)= factor * a[i][:] b for n rows. Strides in values, not bytes.
template <typename T>
struct PackedProduct {
  std::int64_t n;
  const T* a;
  std::int64_t a_stride;
  const T* b;  ///< [inner, columns], packed
  std::int64_t inner, columns;
  T* c;
  std::int64_t c_stride;
  T factor;
  bool add;  ///< to what c holds, or overwrite it
};

/// The kernels of one instruction set for one type.
template <typename T>
struct PackedProductKernels {
  /// Columns of a panel. A packed matrix has inner * panels of them.
  std::int64_t panel_columns;
  /// Packs the panels from `begin` to `end` - 1. Columns beyond the last one are zeros.
  void (*pack)(const MatrixToPack<T>& matrix, std::int64_t begin, std::int64_t end, T* packed);
  void (*multiply)(const PackedProduct<T>& product);
};

}  // namespace mlip
