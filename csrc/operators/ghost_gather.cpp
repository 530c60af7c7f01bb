// The operator `mlip::ghost_gather`: features of owned atoms in, features of owned and ghost atoms out.
//
//   ghost_gather(x [n_owned, ...], n_nodes) -> [n_nodes, ...]
//   ghost_gather_backward(g [n_nodes, ...], n_owned) -> [n_owned, ...]      (its transpose)
//
// Registered here, once, in the one shared library that every engine shell links: a second registration in a
// process would abort it.
#include "operators/ghost_gather.h"

#include "core/error.h"
#include "core/native_operator.h"
#include "operators/autograd.h"

namespace mlip {
namespace {

/// A contiguous tensor on the CPU as the rows that an Exchange works on.
FeatureRows as_rows(const torch::Tensor& tensor, std::int64_t n_owned, bool only_lent = false) {
  TORCH_CHECK(tensor.scalar_type() == torch::kFloat32 || tensor.scalar_type() == torch::kFloat64,
              "ghost_gather: features must be float32 or float64");
  // A product of sizes, since reshape({n, -1}) has no answer when a rank holds no atoms.
  const std::int64_t width = c10::multiply_integers(tensor.sizes().slice(1));
  return {tensor.data_ptr(),
          tensor.scalar_type() == torch::kFloat32 ? Precision::float32 : Precision::float64,
          n_owned,
          tensor.size(0),
          width,
          only_lent};
}

/// n rows more or fewer than x.
std::vector<std::int64_t> with_rows(const torch::Tensor& x, std::int64_t n) {
  std::vector<std::int64_t> sizes = x.sizes().vec();
  sizes[0] = n;
  return sizes;
}

/// Rows on the CPU for lent nodes and ghosts, which a GPU's copies reach without a detour.
torch::Tensor travelling_rows(const torch::Tensor& like, std::int64_t n) {
  return torch::empty(with_rows(like, n), like.options().device(torch::kCPU).pinned_memory(like.is_cuda()));
}

/// int64 [number of lent nodes] in the features' memory.
const torch::Tensor& indices(LentNodes& lent, torch::Device device) {
  if (lent.on_device) return *static_cast<torch::Tensor*>(lent.on_device.get());
  const auto n = static_cast<std::int64_t>(lent.nodes.size());
  const auto made = std::make_shared<torch::Tensor>(
      torch::from_blob(lent.nodes.data(), {n}, torch::kInt64).to(device, /*non_blocking=*/false, /*copy=*/true));
  lent.on_device = made;
  return *made;
}

/// On the CPU an exchange works on the whole matrix in place.
LentNodes* lent_of(Exchange& exchange, const torch::Tensor& features) {
  return features.is_cpu() ? nullptr : exchange.lent();
}

/// @return x itself where there are no ghosts and no exchange
torch::Tensor gather(const torch::Tensor& x, std::int64_t n_nodes) {
  const std::int64_t n_owned = x.size(0);
  Exchange* exchange = ExchangeScope::active();
  TORCH_CHECK(n_nodes >= n_owned, "ghost_gather: ", n_nodes, " nodes are fewer than ", n_owned, " owned atoms");
  if (exchange == nullptr) {
    TORCH_CHECK(n_nodes == n_owned, "ghost_gather: the graph has ", n_nodes - n_owned,
                " ghosts but the engine gave no exchange");
    return x;
  }
  TORCH_CHECK(n_nodes - n_owned == exchange->n_ghosts(), "ghost_gather: ", n_nodes, " nodes for ", n_owned,
              " owned atoms and ", exchange->n_ghosts(), " ghosts. Pass the number of all nodes, node_types.shape[0]");
  if (LentNodes* const lent = lent_of(*exchange, x)) return gather_lent(x, n_nodes, *exchange, *lent);
  torch::Tensor nodes = torch::empty(with_rows(x, n_nodes), x.options().device(torch::kCPU));
  nodes.narrow(0, 0, n_owned).copy_(x);
  exchange->gather(as_rows(nodes, n_owned));
  return nodes.to(x.device());
}

/// @return the gradient itself where there is no exchange
torch::Tensor gather_backward(const torch::Tensor& gradient, std::int64_t n_owned) {
  Exchange* exchange = ExchangeScope::active();
  if (exchange == nullptr) {
    TORCH_CHECK(gradient.size(0) == n_owned, "ghost_gather_backward: no exchange is active");
    return gradient;
  }
  TORCH_CHECK(gradient.size(0) - n_owned == exchange->n_ghosts(), "ghost_gather_backward: a gradient of ",
              gradient.size(0), " nodes for ", n_owned, " owned atoms and ", exchange->n_ghosts(), " ghosts");
  if (LentNodes* const lent = lent_of(*exchange, gradient))
    return gather_lent_backward(gradient, n_owned, *exchange, *lent);
  // The exchange adds into the rows: never into a tensor that autograd still holds.
  torch::Tensor nodes = gradient.to(torch::kCPU).contiguous().clone();
  exchange->scatter_add(as_rows(nodes, n_owned));
  return nodes.narrow(0, 0, n_owned).contiguous().to(gradient.device());
}

/// What one of torch's operators may return: not its argument.
template <torch::Tensor (*function)(const torch::Tensor&, std::int64_t)>
torch::Tensor apart(const torch::Tensor& x, std::int64_t n) {
  const torch::Tensor result = function(x, n);
  return result.is_same(x) ? result.clone() : result;
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

torch::Tensor gather_autograd(const torch::Tensor& x, c10::SymInt n_nodes) {
  const auto forward = [&]() -> Recorded { return {{call_gather(x, n_nodes)}, {}}; };
  // The pass back may run on another thread.
  return record({x}, forward,
                [n_owned = x.sym_size(0), exchange = ExchangeScope::active()](
                    const auto& gradients, const auto&, const auto&) -> std::vector<torch::Tensor> {
                  const ExchangeScope scope(exchange);
                  return {call_gather_backward(gradients[0], n_owned)};
                })[0];
}

/// Without ghosts the features, and their gradient, are passed on as they are: nobody here writes into them.
class NativeGhostGather : public NativeOperator {
 public:
  Tensors forward(Tensors inputs, std::int64_t count, Kept* kept) const override {
    if (kept != nullptr) kept->sizes = {inputs[0].size(0)};
    return {gather(inputs[0], count)};
  }

  void backward(const Tensors& gradients, const Kept& kept, const std::vector<bool>&, Tensors& sums) const override {
    add_gradient(sums[0], gather_backward(gradients[0], kept.sizes[0]));
  }

  std::size_t n_outputs() const override { return 1; }
};

const RegisterNative native("mlip::ghost_gather",
                            [](const std::vector<c10::IValue>& arguments,
                               at::Device) -> std::unique_ptr<NativeOperator> {
                              if (!arguments[0].isNone() || !arguments[1].isNone()) return nullptr;
                              return std::make_unique<NativeGhostGather>();
                            });

}  // namespace

torch::Tensor gather_lent(const torch::Tensor& x, std::int64_t n_nodes, Exchange& exchange, LentNodes& lent) {
  const std::int64_t n_owned = x.size(0), n_ghosts = n_nodes - n_owned;
  const auto n_lent = static_cast<std::int64_t>(lent.nodes.size());
  torch::Tensor rows = travelling_rows(x, n_lent + n_ghosts);
  rows.narrow(0, 0, n_lent).copy_(x.index_select(0, indices(lent, x.device())));
  exchange.gather(as_rows(rows, n_lent, true));
  torch::Tensor nodes = torch::empty(with_rows(x, n_nodes), x.options());
  nodes.narrow(0, 0, n_owned).copy_(x);
  nodes.narrow(0, n_owned, n_ghosts).copy_(rows.narrow(0, n_lent, n_ghosts), /*non_blocking=*/true);
  return nodes;
}

torch::Tensor gather_lent_backward(const torch::Tensor& gradient, std::int64_t n_owned, Exchange& exchange,
                                   LentNodes& lent) {
  const std::int64_t n_ghosts = gradient.size(0) - n_owned;
  const auto n_lent = static_cast<std::int64_t>(lent.nodes.size());
  torch::Tensor rows = travelling_rows(gradient, n_lent + n_ghosts);
  rows.narrow(0, 0, n_lent).zero_();
  rows.narrow(0, n_lent, n_ghosts).copy_(gradient.narrow(0, n_owned, n_ghosts));
  exchange.scatter_add(as_rows(rows, n_lent, true));
  torch::Tensor owned = gradient.narrow(0, 0, n_owned).clone();
  // Each node once: no two additions meet.
  return owned.index_add_(0, indices(lent, gradient.device()),
                          rows.narrow(0, 0, n_lent).to(gradient.device(), /*non_blocking=*/true));
}

}  // namespace mlip

TORCH_LIBRARY(mlip, library) {
  library.def("ghost_gather(Tensor x, SymInt n_nodes) -> Tensor");
  library.def("ghost_gather_backward(Tensor gradient, SymInt n_owned) -> Tensor");
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) {
  library.impl("ghost_gather", mlip::apart<mlip::gather>);
  library.impl("ghost_gather_backward", mlip::apart<mlip::gather_backward>);
}

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("ghost_gather", mlip::gather_autograd); }
