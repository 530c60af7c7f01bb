// The operator `mlip::sum_over_atoms`: a sum over all atoms of the system, on whatever ranks they are.
//
//   sum_over_atoms(x [n_owned, ...]) -> [...]
//   sum_over_atoms_backward(g [...], n_owned) -> [n_owned, ...]
//
// The energy is a sum over ranks, and every rank's energies may depend on the result: what they feel together, the sum
// of g over ranks, goes to every atom. Sums are in float64. Collective: every rank calls it, without atoms too.
#include <torch/script.h>

#include "core/error.h"
#include "core/exchange.h"
#include "operators/autograd.h"

namespace mlip {
namespace {

torch::Tensor over_ranks(const torch::Tensor& own, at::ScalarType type, at::Device device) {
  Exchange* exchange = ExchangeScope::active();
  if (exchange == nullptr) return own.to(type);
  torch::Tensor total = own.to(torch::kCPU).contiguous().clone();
  exchange->sum(total.data_ptr<double>(), total.numel());
  return total.to(device, type);
}

torch::Tensor sum(const torch::Tensor& x) {
  TORCH_CHECK(x.dim() > 0 && (x.scalar_type() == torch::kFloat32 || x.scalar_type() == torch::kFloat64),
              "sum_over_atoms: expected float32 or float64 [n_owned, ...]");
  return over_ranks(x.to(torch::kFloat64).sum(0), x.scalar_type(), x.device());
}

torch::Tensor sum_backward(const torch::Tensor& gradient, std::int64_t n_owned) {
  const torch::Tensor total = over_ranks(gradient.to(torch::kFloat64), gradient.scalar_type(), gradient.device());
  std::vector<std::int64_t> sizes = {n_owned};
  sizes.insert(sizes.end(), total.sizes().begin(), total.sizes().end());
  return total.expand(sizes).contiguous();
}

torch::Tensor call_sum(const torch::Tensor& x) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mlip::sum_over_atoms", "")
                             .typed<torch::Tensor(const torch::Tensor&)>();
  return op.call(x);
}

torch::Tensor call_sum_backward(const torch::Tensor& gradient, c10::SymInt n_owned) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mlip::sum_over_atoms_backward", "")
                             .typed<torch::Tensor(const torch::Tensor&, c10::SymInt)>();
  return op.call(gradient, std::move(n_owned));
}

torch::Tensor sum_autograd(const torch::Tensor& x) {
  const auto forward = [&]() -> Recorded { return {{call_sum(x)}, {}}; };
  // The pass back may run on another thread.
  return record({x}, forward,
                [n_owned = x.sym_size(0), exchange = ExchangeScope::active()](
                    const auto& gradients, const auto&, const auto&) -> std::vector<torch::Tensor> {
                  const ExchangeScope scope(exchange);
                  return {call_sum_backward(gradients[0], n_owned)};
                })[0];
}

}  // namespace
}  // namespace mlip

TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def("sum_over_atoms(Tensor x) -> Tensor");
  library.def("sum_over_atoms_backward(Tensor gradient, SymInt n_owned) -> Tensor");
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) {
  library.impl("sum_over_atoms", mlip::sum);
  library.impl("sum_over_atoms_backward", mlip::sum_backward);
}

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("sum_over_atoms", mlip::sum_autograd); }
