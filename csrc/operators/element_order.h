// Atoms sorted by element, so that those of an element are one matrix product.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace mlip {

struct ElementOrder {
  std::vector<std::int64_t> count;  ///< atoms of each element
  at::Tensor order;                 ///< int64 [n_atoms]; undefined where all are of one element, or there are none

  /// Counts them, for which the host waits on a GPU.
  /// @param types int64 [n_atoms]
  /// @throws c10::Error for a type that is not one of n_elements
  ElementOrder(const at::Tensor& types, std::int64_t n_elements);

  /// The one for these types: remembered for as long as they stay as they are, which for a step's types
  /// (model/device_step.cpp) is from one search for neighbours to the next.
  static std::shared_ptr<const ElementOrder> of(const at::Tensor& types, std::int64_t n_elements);

  /// The element of all atoms, where `order` is undefined.
  std::int64_t only() const;
};

}  // namespace mlip
