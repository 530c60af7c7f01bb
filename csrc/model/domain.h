// Grades: how far atoms are from the environments that a model has been shown to know, and uncertainties of energies,
// calibrated with labels (core/domain_record.h).
//
// In the type of the features. Grades are tensor operations on a device, and one loop over the atoms on the CPU: there
// the many small operations would cost several percent of a step of few atoms.
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
  /// The same on the CPU.
  /// @param types of the first n nodes
  void grades_on_cpu(const at::Tensor& features, const std::vector<std::int64_t>& types,
                     std::vector<double>& grades) const;

  // Where the domain was fitted to frames with energies:

  /// @return [n] eV, of the energy of each atom alone: these do not add up
  at::Tensor uncertainties(const at::Tensor& features) const;
  /// Of the energy of a whole structure.
  /// @param features summed over the owned atoms, float64 [the contract's features]
  /// @param exchange sums them over all ranks; null: there is one
  /// @return eV
  double energy_uncertainty(std::vector<double> features, Exchange* exchange) const;

 private:
  /// DomainOfElement in tensors, and what comes of them; `points` is transposed.
  struct OfElement {
    std::int64_t type;
    double distance;
    at::Tensor mean, axes, axes_transposed, scales, points, squares;
  };

  template <typename T>
  void grades_of(const at::Tensor& features, const std::vector<std::int64_t>& types, double* grades) const;

  std::vector<OfElement> elements_;
  std::vector<const OfElement*> of_type_;  // null where there is none
  std::vector<double> factor_;             // DomainRecord::uncertainty_factor
  at::Tensor factor_of_atoms_;             // the same, transposed, in the type of the features
};

}  // namespace mlip
