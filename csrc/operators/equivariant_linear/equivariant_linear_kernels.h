// CPU kernel of the operator `mlip::equivariant_linear`, free of torch so that it compiles in seconds.
//
// Small matrices that many atoms share: of every atom and component, a row of channels times one matrix. The rows of
// an atom may lie anywhere, so that atoms of one element need not be copied together, and so that a result can be part
// of a longer row.
//
// equivariant_linear_simd.cpp is compiled once per instruction set; instruction_sets.h says which one runs.
#pragma once

#include <cstdint>

namespace mlip {

/// c[atom][m][:] (+)= a[atom][m][:] b for atoms and components m. Strides in values, not bytes.
template <typename T>
struct RowProduct {
  const T* a;
  std::int64_t a_stride;  ///< from atom to atom; from component to component it is `inner`
  const T* b;             ///< [inner, columns]
  T* c;
  std::int64_t c_stride;  ///< from atom to atom; from component to component it is `columns`
  std::int64_t components, inner, columns;
  bool add;  ///< to what c holds, or overwrite it
};

template <typename T>
struct EquivariantLinearKernels {
  /// For atoms[begin .. end), or atoms begin to end - 1 where `atoms` is null.
  void (*multiply)(const RowProduct<T>& product, const std::int64_t* atoms, std::int64_t begin, std::int64_t end);
};

}  // namespace mlip
