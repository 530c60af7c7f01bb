// The operator `mlip::gated_pairs`: two perceptrons of the features of an edge and of the atoms at its ends, of which
// the second is the gate of the first, as MatterSim's M3GNet has them.
//
//   gated_pairs(of_centres [n_centres, 2 channels], of_neighbours [n_nodes, 2 channels], of_edges [n_edges, 2
//   channels],
//               edge_index int64 [2, n_edges], weights [2, channels, channels], biases [2, channels],
//               factors [n_edges, channels]) -> [n_edges, channels]
//
//   x = of_centres[edge_index[0]] + of_neighbours[edge_index[1]] + of_edges       values' channels, then gates'
//   v, g = weights silu(x) + biases                                               each of its own half
//   result = silu(v) sigmoid(g) factors
//
// Weights and biases are constants, without a gradient. The matrix products are torch's; what is between them the CPU
// computes in kernels of its own, and any other device in torch's operators, which is also the reference of the tests:
// `mlip::gated_pairs_reference`.
#include <ATen/Parallel.h>
#include <torch/script.h>

#include "operators/gated_pairs/gated_pairs_kernels.h"
#include "operators/instruction_sets.h"

namespace mlip {
namespace {

using torch::Tensor;

void check(const Tensor& of_centres, const Tensor& of_neighbours, const Tensor& of_edges, const Tensor& edge_index,
           const Tensor& weights, const Tensor& biases, const Tensor& factors) {
  const auto channels = factors.dim() == 2 ? factors.size(1) : -1, n_edges = factors.size(0);
  const auto rows_of = [&](const Tensor& x) { return x.dim() == 2 && x.size(1) == 2 * channels; };
  TORCH_CHECK(rows_of(of_centres) && rows_of(of_neighbours) && rows_of(of_edges) && of_edges.size(0) == n_edges &&
                  edge_index.dim() == 2 && edge_index.size(0) == 2 && edge_index.size(1) == n_edges &&
                  weights.sizes() == at::IntArrayRef({2, channels, channels}) &&
                  biases.sizes() == at::IntArrayRef({2, channels}),
              "gated_pairs: expected factors [n_edges, channels], [..., 2 channels] of centres, neighbours and edges, "
              "an edge index [2, n_edges], weights [2, channels, channels] and biases [2, channels], found ",
              factors.sizes(), ", ", of_centres.sizes(), ", ", of_neighbours.sizes(), ", ", of_edges.sizes(), ", ",
              edge_index.sizes(), ", ", weights.sizes(), " and ", biases.sizes());
  for (const Tensor& other : {of_centres, of_neighbours, of_edges, weights, biases})
    TORCH_CHECK(other.scalar_type() == factors.scalar_type(), "gated_pairs: all inputs must have one type, found ",
                other.scalar_type(), " and ", factors.scalar_type());
}

Tensor reference(const Tensor& of_centres, const Tensor& of_neighbours, const Tensor& of_edges,
                 const Tensor& edge_index, const Tensor& weights, const Tensor& biases, const Tensor& factors) {
  check(of_centres, of_neighbours, of_edges, edge_index, weights, biases, factors);
  const Tensor x =
      torch::silu(of_centres.index_select(0, edge_index[0]) + of_neighbours.index_select(0, edge_index[1]) + of_edges);
  const auto halves = x.chunk(2, 1);
  return torch::silu(torch::linear(halves[0], weights[0], biases[0])) *
         torch::sigmoid(torch::linear(halves[1], weights[1], biases[1])) * factors;
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Calls body(kernels of T, T{}) for the type of `example`.
template <typename Body>
void with_kernels(const Tensor& example, Body&& body) {
  AT_DISPATCH_FLOATING_TYPES(example.scalar_type(), "gated_pairs",
                             [&] { body(*instruction_set().kernels<scalar_t>().gated_pairs, scalar_t{}); });
}

template <typename Body>
void for_edges(std::int64_t n_edges, Body&& body) {
  constexpr std::int64_t fewest_edges = 64;  // less is not worth waking a thread
  at::parallel_for(0, n_edges, fewest_edges, body);
}

/// The two halves of rows [n, 2 channels].
std::pair<Tensor, Tensor> halves(const Tensor& rows) {
  const std::int64_t channels = rows.size(1) / 2;
  return {rows.narrow(1, 0, channels), rows.narrow(1, channels, channels)};
}

/// The kernels trust every index.
void check_range(const Tensor& indices, std::int64_t end, const char* what) {
  const auto* const index = indices.const_data_ptr<std::int64_t>();
  for (std::int64_t k = 0; k < indices.numel(); ++k)
    TORCH_CHECK_INDEX(index[k] >= 0 && index[k] < end, "gated_pairs: ", what, " ", index[k], " is outside [0, ", end,
                      ")");
}

/// -> result, x and [v, g]
std::tuple<Tensor, Tensor, Tensor> forward_cpu(const Tensor& of_centres_, const Tensor& of_neighbours_,
                                               const Tensor& of_edges_, const Tensor& edge_index_,
                                               const Tensor& weights, const Tensor& biases, const Tensor& factors_) {
  check(of_centres_, of_neighbours_, of_edges_, edge_index_, weights, biases, factors_);
  const Tensor of_centres = of_centres_.contiguous(), of_neighbours = of_neighbours_.contiguous(),
               of_edges = of_edges_.contiguous(), edge_index = edge_index_.contiguous(),
               factors = factors_.contiguous();
  const std::int64_t n_edges = factors.size(0), channels = factors.size(1);
  check_range(edge_index[0], of_centres.size(0), "centre");
  check_range(edge_index[1], of_neighbours.size(0), "neighbour");
  const Tensor inputs = torch::empty_like(of_edges), activated = torch::empty_like(of_edges),
               both = torch::empty_like(of_edges), result = torch::empty_like(factors);
  with_kernels(factors, [&](const auto& kernels, auto example) {
    using T = decltype(example);
    const auto* const centres = edge_index.const_data_ptr<std::int64_t>();
    for_edges(n_edges, [&](std::int64_t begin, std::int64_t end) {
      kernels.sum(of_centres.const_data_ptr<T>(), of_neighbours.const_data_ptr<T>(), of_edges.const_data_ptr<T>(),
                  centres, centres + n_edges, channels, inputs.data_ptr<T>(), activated.data_ptr<T>(), begin, end);
    });
    auto [values, gates] = halves(both);
    const auto [of_values, of_gates] = halves(activated);
    at::addmm_out(values, biases[0], of_values, weights[0].t());
    at::addmm_out(gates, biases[1], of_gates, weights[1].t());
    for_edges(n_edges, [&](std::int64_t begin, std::int64_t end) {
      kernels.gate(both.const_data_ptr<T>(), factors.const_data_ptr<T>(), channels, result.data_ptr<T>(), begin, end);
    });
  });
  return {result, inputs, both};
}

/// -> gradients of of_edges and of factors
std::tuple<Tensor, Tensor> backward_cpu(const Tensor& gradient_, const Tensor& inputs, const Tensor& both,
                                        const Tensor& weights, const Tensor& factors_) {
  const Tensor gradient = gradient_.contiguous(), factors = factors_.contiguous();
  const std::int64_t n_edges = factors.size(0), channels = factors.size(1);
  const Tensor of_both = torch::empty_like(both), of_factors = torch::empty_like(factors),
               of_inputs = torch::empty_like(inputs);
  with_kernels(factors, [&](const auto& kernels, auto example) {
    using T = decltype(example);
    for_edges(n_edges, [&](std::int64_t begin, std::int64_t end) {
      kernels.gate_backward(gradient.const_data_ptr<T>(), both.const_data_ptr<T>(), factors.const_data_ptr<T>(),
                            channels, of_both.data_ptr<T>(), of_factors.data_ptr<T>(), begin, end);
    });
    const auto [of_values, of_gates] = halves(of_both);
    auto [to_values, to_gates] = halves(of_inputs);
    at::mm_out(to_values, of_values, weights[0]);
    at::mm_out(to_gates, of_gates, weights[1]);
    for_edges(n_edges, [&](std::int64_t begin, std::int64_t end) {
      kernels.activated_backward(inputs.const_data_ptr<T>(), channels, of_inputs.data_ptr<T>(), begin, end);
    });
  });
  return {of_inputs, of_factors};
}

// ---- autograd ------------------------------------------------------------------------------------------------

class GatedPairs : public torch::autograd::Function<GatedPairs> {
 public:
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& of_centres,
                        const Tensor& of_neighbours, const Tensor& of_edges, const Tensor& edge_index,
                        const Tensor& weights, const Tensor& biases, const Tensor& factors) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [result, inputs, both] =
        forward_cpu(of_centres, of_neighbours, of_edges, edge_index, weights, biases, factors);
    context->save_for_backward({inputs, both, edge_index, weights, factors});
    context->saved_data["n_centres"] = of_centres.size(0);
    context->saved_data["n_nodes"] = of_neighbours.size(0);
    return result;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor& edge_index = saved[2];
    const auto [of_edges, of_factors] = backward_cpu(gradients[0], saved[0], saved[1], saved[3], saved[4]);
    const auto summed = [&of_edges = of_edges](std::int64_t n, const Tensor& index) {
      return torch::zeros({n, of_edges.size(1)}, of_edges.options()).index_add_(0, index, of_edges);
    };
    return {summed(context->saved_data["n_centres"].toInt(), edge_index[0]),
            summed(context->saved_data["n_nodes"].toInt(), edge_index[1]),
            of_edges,
            Tensor(),
            Tensor(),
            Tensor(),
            of_factors};
  }
};

Tensor forward_autograd(const Tensor& of_centres, const Tensor& of_neighbours, const Tensor& of_edges,
                        const Tensor& edge_index, const Tensor& weights, const Tensor& biases, const Tensor& factors) {
  if (!factors.is_cpu()) return reference(of_centres, of_neighbours, of_edges, edge_index, weights, biases, factors);
  return GatedPairs::apply(of_centres, of_neighbours, of_edges, edge_index, weights, biases, factors);
}

Tensor without_gradients(const Tensor& of_centres, const Tensor& of_neighbours, const Tensor& of_edges,
                         const Tensor& edge_index, const Tensor& weights, const Tensor& biases, const Tensor& factors) {
  return std::get<0>(forward_cpu(of_centres, of_neighbours, of_edges, edge_index, weights, biases, factors));
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "gated_pairs(Tensor of_centres, Tensor of_neighbours, Tensor of_edges, Tensor edge_index, Tensor weights, "
      "Tensor biases, Tensor factors) -> Tensor");
  library.def(
      "gated_pairs_reference(Tensor of_centres, Tensor of_neighbours, Tensor of_edges, Tensor edge_index, "
      "Tensor weights, Tensor biases, Tensor factors) -> Tensor",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) { library.impl("gated_pairs", mlip::without_gradients); }

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("gated_pairs", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("gated_pairs", mlip::forward_autograd); }
