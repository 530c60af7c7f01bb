// The operator `mlip::ghost_gather`: features of owned atoms in, features of owned and ghost atoms out.
//
//   ghost_gather(x [n_owned, ...], n_nodes) -> [n_nodes, ...]
//   ghost_gather_backward(g [n_nodes, ...], n_owned) -> [n_owned, ...]      (its transpose)
//
// Registered here, once, in the one shared library that every engine shell links: a second registration in a
// process would abort it.
#include <torch/script.h>

#include "core/error.h"
#include "core/exchange.h"
#include "operators/exchange_holder.h"

namespace mlip {
namespace {

/// A contiguous tensor as the rows that an Exchange works on.
FeatureRows as_rows(const torch::Tensor& tensor, std::int64_t n_owned) {
  TORCH_CHECK(tensor.scalar_type() == torch::kFloat32 || tensor.scalar_type() == torch::kFloat64,
              "ghost_gather: features must be float32 or float64");
  // A product of sizes, since reshape({n, -1}) has no answer when a rank holds no atoms.
  const std::int64_t width = c10::multiply_integers(tensor.sizes().slice(1));
  return {tensor.data_ptr(), tensor.scalar_type() == torch::kFloat32 ? Precision::float32 : Precision::float64, n_owned,
          tensor.size(0), width};
}

/// n rows more or fewer than x.
std::vector<std::int64_t> with_rows(const torch::Tensor& x, std::int64_t n) {
  std::vector<std::int64_t> sizes = x.sizes().vec();
  sizes[0] = n;
  return sizes;
}

torch::Tensor gather(const torch::Tensor& x, std::int64_t n_nodes) {
  const std::int64_t n_owned = x.size(0);
  Exchange* exchange = ExchangeScope::active();
  TORCH_CHECK(n_nodes >= n_owned, "ghost_gather: ", n_nodes, " nodes are fewer than ", n_owned, " owned atoms");
  if (exchange == nullptr) {
    TORCH_CHECK(n_nodes == n_owned, "ghost_gather: the graph has ", n_nodes - n_owned,
                " ghosts but the engine gave no exchange");
    return x.clone();
  }
  torch::Tensor nodes = torch::empty(with_rows(x, n_nodes), x.options().device(torch::kCPU));
  nodes.narrow(0, 0, n_owned).copy_(x);
  exchange->gather(as_rows(nodes, n_owned));
  return nodes.to(x.device());
}

torch::Tensor gather_backward(const torch::Tensor& gradient, std::int64_t n_owned) {
  Exchange* exchange = ExchangeScope::active();
  if (exchange == nullptr) {
    TORCH_CHECK(gradient.size(0) == n_owned, "ghost_gather_backward: no exchange is active");
    return gradient.clone();
  }
  // The exchange adds into the rows: never into a tensor that autograd still holds.
  torch::Tensor nodes = gradient.to(torch::kCPU).contiguous().clone();
  exchange->scatter_add(as_rows(nodes, n_owned));
  return nodes.narrow(0, 0, n_owned).contiguous().to(gradient.device());
}

// Counts are SymInt wherever a trace for AOTInductor comes through: an int would become a constant of the trace.
torch::Tensor call_gather(const torch::Tensor& x, c10::SymInt n_nodes) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mlip::ghost_gather", "")
                             .typed<torch::Tensor(const torch::Tensor&, c10::SymInt)>();
  return op.call(x, std::move(n_nodes));
}

torch::Tensor call_gather_backward(const torch::Tensor& gradient, c10::SymInt n_owned) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("mlip::ghost_gather_backward", "")
                             .typed<torch::Tensor(const torch::Tensor&, c10::SymInt)>();
  return op.call(gradient, std::move(n_owned));
}

class GhostGather : public torch::autograd::Function<GhostGather> {
 public:
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& x, c10::SymInt n_nodes) {
    context->saved_data["n_owned"] = x.sym_size(0);
    keep_exchange(*context);
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    return call_gather(x, std::move(n_nodes));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const ExchangeScope scope(kept_exchange(*context));
    return {call_gather_backward(gradients[0], context->saved_data["n_owned"].toSymInt()), torch::Tensor()};
  }
};

torch::Tensor gather_autograd(const torch::Tensor& x, c10::SymInt n_nodes) {
  return GhostGather::apply(x, std::move(n_nodes));
}

}  // namespace
}  // namespace mlip

TORCH_LIBRARY(mlip, library) {
  library.def("ghost_gather(Tensor x, SymInt n_nodes) -> Tensor");
  library.def("ghost_gather_backward(Tensor gradient, SymInt n_owned) -> Tensor");
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) {
  library.impl("ghost_gather", mlip::gather);
  library.impl("ghost_gather_backward", mlip::gather_backward);
}

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("ghost_gather", mlip::gather_autograd); }
