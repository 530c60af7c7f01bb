#include "model/domain.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "model/backend.h"

namespace mlip {
namespace {

constexpr std::int64_t fewest_atoms = 16;  // for a thread of its own

/// sums += factor * row: sums that are independent of each other, so that the compiler uses vectors.
template <typename T>
void add(T factor, const T* row, std::int64_t n, T* sums) {
  for (std::int64_t k = 0; k < n; ++k) sums[k] += factor * row[k];
}

template <typename T>
T squared_norm(const std::vector<T>& values) {
  return std::inner_product(values.begin(), values.end(), values.begin(), T(0));
}

}  // namespace

Domain::Domain(const DomainRecord& record, const Contract& contract, at::Device device)
    : factor_(record.uncertainty_factor) {
  for (const DomainOfElement& of : record.elements) {
    const auto tensor = [&](const std::vector<float>& values, at::IntArrayRef sizes) {
      return at::from_blob(const_cast<float*>(values.data()), sizes, at::kFloat)
          .to(device, scalar_type(contract.precision), /*non_blocking=*/false, /*copy=*/true);
    };
    const at::Tensor points = tensor(of.points, {of.n_points, of.n_axes + 1});
    const at::Tensor axes = tensor(of.axes, {of.n_axes, record.n_features});
    elements_.push_back({contract.type_index(of.element), of.distance, tensor(of.mean, {record.n_features}), axes,
                         axes.t().contiguous(), tensor(of.scales, {of.n_axes + 1}), points.t().contiguous(),
                         points.square().sum(1)});
  }
  of_type_.resize(contract.elements.size());
  for (const OfElement& of : elements_) of_type_[of.type] = &of;
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
    const at::Tensor along = x.matmul(of.axes_transposed);
    const at::Tensor outside = x.sub(along.matmul(of.axes)).square_().sum(1, true).sqrt_();
    const at::Tensor z = at::cat({along, outside}, 1).mul_(of.scales);
    const at::Tensor squared = z.square().sum(1) + at::sub(of.squares, z.matmul(of.points), 2.0).amin(1);
    grades.index_copy_(0, atoms, squared.clamp_min_(0.0).sqrt_().div_(of.distance));
  }
  return grades;
}

template <typename T>
void Domain::grades_of(const at::Tensor& features, const std::vector<std::int64_t>& types, double* grades) const {
  const std::int64_t n_features = features.size(1);
  const at::Tensor rows = features.contiguous();
  at::parallel_for(0, rows.size(0), fewest_atoms, [&](std::int64_t begin, std::int64_t end) {
    std::vector<T> x(n_features), z, products;
    for (std::int64_t atom = begin; atom < end; ++atom) {
      const OfElement* of = of_type_[types[atom]];
      grades[atom] = std::numeric_limits<double>::infinity();
      if (of == nullptr) continue;
      const std::int64_t n_axes = of->axes.size(0), n_points = of->squares.size(0);
      const T* mean = of->mean.const_data_ptr<T>();
      const T* axes = of->axes.const_data_ptr<T>();
      const T* axes_transposed = of->axes_transposed.const_data_ptr<T>();
      const T* scales = of->scales.const_data_ptr<T>();
      const T* points = of->points.const_data_ptr<T>();
      const T* squares = of->squares.const_data_ptr<T>();

      std::copy_n(rows.const_data_ptr<T>() + atom * n_features, n_features, x.begin());
      add(T(-1), mean, n_features, x.data());
      z.assign(n_axes + 1, T(0));
      for (std::int64_t k = 0; k < n_features; ++k) add(x[k], axes_transposed + k * n_axes, n_axes, z.data());
      for (std::int64_t a = 0; a < n_axes; ++a) add(-z[a], axes + a * n_features, n_features, x.data());
      z[n_axes] = std::sqrt(squared_norm(x));
      for (std::int64_t a = 0; a <= n_axes; ++a) z[a] *= scales[a];

      products.assign(squares, squares + n_points);
      for (std::int64_t a = 0; a <= n_axes; ++a) add(T(-2) * z[a], points + a * n_points, n_points, products.data());
      const T nearest = squared_norm(z) + *std::min_element(products.begin(), products.end());
      grades[atom] = std::sqrt(std::max(nearest, T(0))) / of->distance;
    }
  });
}

void Domain::grades_on_cpu(const at::Tensor& features, const std::vector<std::int64_t>& types,
                           std::vector<double>& grades) const {
  grades.resize(features.size(0));
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "grades",
                             [&] { grades_of<scalar_t>(features, types, grades.data()); });
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
