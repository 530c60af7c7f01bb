// Grades: how far atoms are from the environments that a model has been shown to know, and uncertainties of energies,
// calibrated with labels (core/domain_record.h).
//
// The same tensor operations on every device and for every engine, in the type of the features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/contract.h"
#include "core/domain_record.h"
#include "core/exchange.h"

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

  // Where the domain was fitted to frames with energies:

  /// @return [n] eV, of the energy of each atom alone: these do not add up
  at::Tensor uncertainties(const at::Tensor& features) const;
  /// Of the energy of a whole structure.
  /// @param features summed over the owned atoms, float64 [the contract's features]
  /// @param exchange sums them over all ranks; null: there is one
  /// @return eV
  double energy_uncertainty(std::vector<double> features, Exchange* exchange) const;

 private:
  /// DomainOfElement in tensors; points transposed, with their squares.
  struct OfElement {
    std::int64_t type;
    double distance;
    at::Tensor mean, axes, scales, points, squares;
  };

  std::vector<OfElement> elements_;
  std::vector<double> factor_;  // DomainRecord::uncertainty_factor
  at::Tensor factor_of_atoms_;  // the same, transposed, in the type of the features
};

}  // namespace mlip
