// A constant matrix that many rows are multiplied with, packed for the instruction set that runs.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdint>

#include "operators/instruction_sets.h"
#include "operators/packed_product_kernels.h"

namespace mlip {

template <typename T>
class PackedMatrix {
 public:
  PackedMatrix() = default;
  /// Packs `matrix` [inner, columns], which may be a view that is not contiguous, by several threads.
  explicit PackedMatrix(const at::Tensor& matrix)
      : inner_(matrix.size(0)), columns_(matrix.size(1)), kernels_(instruction_set().kernels<T>().packed_product) {
    const std::int64_t n_panels = (columns_ + kernels_->panel_columns - 1) / kernels_->panel_columns;
    packed_ = at::empty({inner_ * n_panels * kernels_->panel_columns}, matrix.options());
    const MatrixToPack<T> from{matrix.const_data_ptr<T>(), matrix.stride(0), matrix.stride(1), inner_, columns_};
    T* const to = packed_.data_ptr<T>();
    const std::int64_t at_least = 1 + 65536 / (1 + inner_ * kernels_->panel_columns);  // panels worth a thread
    at::parallel_for(0, n_panels, at_least,
                     [&](std::int64_t begin, std::int64_t end) { kernels_->pack(from, begin, end, to); });
  }

  /// c[i][:] (+)= factor * a[i][:] matrix for n rows, which are `a_stride` and `c_stride` values apart; on this thread.
  void multiply(std::int64_t n, const T* a, std::int64_t a_stride, T* c, std::int64_t c_stride, bool add = false,
                T factor = T(1)) const {
    kernels_->multiply({n, a, a_stride, packed_.const_data_ptr<T>(), inner_, columns_, c, c_stride, factor, add});
  }
  /// The same of rows that follow one another.
  void multiply(std::int64_t n, const T* a, T* c, bool add = false) const { multiply(n, a, inner_, c, columns_, add); }

  std::int64_t inner() const { return inner_; }
  std::int64_t columns() const { return columns_; }

 private:
  std::int64_t inner_ = 0, columns_ = 0;
  const PackedProductKernels<T>* kernels_ = nullptr;
  at::Tensor packed_;
};

}  // namespace mlip
