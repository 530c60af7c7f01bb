#include "model/domain.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "model/backend.h"

namespace mlip {

Domain::Domain(const DomainRecord& record, const Contract& contract, at::Device device)
    : factor_(record.uncertainty_factor) {
  for (const DomainOfElement& of : record.elements) {
    const auto tensor = [&](const std::vector<float>& values, at::IntArrayRef sizes) {
      return at::from_blob(const_cast<float*>(values.data()), sizes, at::kFloat)
          .to(device, scalar_type(contract.precision), /*non_blocking=*/false, /*copy=*/true);
    };
    const at::Tensor points = tensor(of.points, {of.n_points, of.n_axes + 1});
    elements_.push_back({contract.type_index(of.element), of.distance, tensor(of.mean, {record.n_features}),
                         tensor(of.axes, {of.n_axes, record.n_features}), tensor(of.scales, {of.n_axes + 1}),
                         points.t().contiguous(), points.square().sum(1)});
  }
  if (factor_.empty()) return;
  factor_of_atoms_ = at::from_blob(factor_.data(), {record.n_features, record.n_features}, at::kDouble)
                         .t()
                         .to(device, scalar_type(contract.precision), /*non_blocking=*/false, /*copy=*/true)
                         .contiguous();
}

at::Tensor Domain::grades(const at::Tensor& features, const at::Tensor& types) const {
  const c10::NoGradGuard no_grad;
  at::Tensor grades = at::full({types.size(0)}, std::numeric_limits<double>::infinity(), features.options());
  for (const OfElement& of : elements_) {
    const at::Tensor atoms = types.eq(of.type).nonzero().select(1, 0);
    if (atoms.size(0) == 0) continue;
    const at::Tensor x = features.index_select(0, atoms).sub_(of.mean);
    const at::Tensor along = x.matmul(of.axes.t());
    const at::Tensor outside = x.sub(along.matmul(of.axes)).square_().sum(1, true).sqrt_();
    const at::Tensor z = at::cat({along, outside}, 1).mul_(of.scales);
    const at::Tensor squared = z.square().sum(1) + at::sub(of.squares, z.matmul(of.points), 2.0).amin(1);
    grades.index_copy_(0, atoms, squared.clamp_min_(0.0).sqrt_().div_(of.distance));
  }
  return grades;
}

at::Tensor Domain::uncertainties(const at::Tensor& features) const {
  const c10::NoGradGuard no_grad;
  return features.matmul(factor_of_atoms_).square_().sum(1).sqrt_();
}

double Domain::energy_uncertainty(std::vector<double> features, Exchange* exchange) const {
  const auto n = static_cast<std::int64_t>(features.size());
  if (exchange != nullptr) exchange->sum(features.data(), n);
  double squared = 0.0;
  for (std::int64_t row = 0; row < n; ++row) {
    const double along = std::inner_product(features.begin(), features.end(), factor_.begin() + row * n, 0.0);
    squared += along * along;
  }
  return std::sqrt(squared);
}

}  // namespace mlip
