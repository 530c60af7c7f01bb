// Grades: how far atoms are from the environments that a model has been shown to know (core/domain_record.h).
//
// The same tensor operations on every device and for every engine, in the type of the features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/contract.h"
#include "core/domain_record.h"

namespace mlip {

class Domain {
 public:
  /// @param record of the file that `contract` is of
  Domain(const DomainRecord& record, const Contract& contract, at::Device device);

  /// @param features [n, the contract's features], of the contract's type
  /// @param types int64 [n], type indices in the contract's element list
  /// @return [n]: 1 is as far as the farthest hundredth of the reference environments of the atom's element, more is
  ///         outside; infinity for an element without reference environments
  at::Tensor grades(const at::Tensor& features, const at::Tensor& types) const;

 private:
  /// DomainOfElement in tensors; points transposed, with their squares.
  struct OfElement {
    std::int64_t type;
    double distance;
    at::Tensor mean, axes, scales, points, squares;
  };

  std::vector<OfElement> elements_;
};

}  // namespace mlip
