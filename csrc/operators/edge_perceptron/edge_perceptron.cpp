// The operator `mlip::edge_perceptron`: M3GNet's gated perceptron of an edge and of the atoms at its ends, weighed by
// functions of the distance.
//
//   edge_perceptron(of_centres, of_neighbours, edges, radial, edge_index, weights, to_atoms, keep)
//     -> result, kept
//
// of an edge e from i to j, for each channel:
//   h[e]    = silu(of_centres[i] + of_neighbours[j] + edges[e] weights[0])        values' channels, then gates'
//   v, g[e] = h[e] weights[1] + weights[2]                                        each half of h by its own matrix
//   f[e]    = radial[e] weights[3]
//   to edges:  result[e] = edges[e] + silu(v[e]) sigmoid(g[e]) f[e]               [n_edges, channels]
//   to atoms:  result[i] = Σ_{edges e of i} silu(v[e]) sigmoid(g[e]) silu(f[e])   [n_owned, channels]
//
//   of_centres     [n_owned, 2 channels], what a linear layer makes of atoms
//   of_neighbours  [n_nodes, 2 channels]
//   edges          [n_edges, channels]
//   radial         [n_edges, n_radial]
//   edge_index     int64 [2, n_edges]: centres i in [0, n_owned), neighbours j in [0, n_nodes)
//   weights        [channels, 2 channels], [2, channels, channels], [2 channels] and [n_radial, channels]: constants
//                  without a gradient
//   to_atoms       which of the two results
//   keep           whether to return what the pass back needs [n_edges, 5 channels], which is empty otherwise: slopes
//                  of h, and of the result by v, g and f, in the order of centres
//
// The CPU takes some edges at a time through all steps. Other devices compute the same from torch's own operators,
// which is also the reference that the tests use: `mlip::edge_perceptron_reference`.
#include <torch/script.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "operators/autograd.h"
#include "operators/edge_blocks.h"
#include "operators/edge_perceptron/edge_perceptron_kernels.h"
#include "operators/edges_by_centre.h"
#include "operators/instruction_sets.h"
#include "operators/packed_matrix.h"
#include "operators/tracing.h"

namespace mlip {
namespace {

using at::Tensor;

/// What `weights` holds, by its place.
constexpr int of_edges = 0, second_matrices = 1, second_biases = 2, of_radial = 3;
constexpr std::size_t n_weights = 4;

/// The sizes of a call, checked against the tensors.
struct Plan {
  c10::SymInt n_owned, n_nodes, n_edges;
  std::int64_t n_channels, n_radial;

  Plan(const Tensor& of_centres, const Tensor& of_neighbours, const Tensor& edges, const Tensor& radial,
       const Tensor& edge_index, at::TensorList weights) {
    TORCH_CHECK(edges.dim() == 2 && radial.dim() == 2 && of_centres.dim() == 2 && of_neighbours.dim() == 2,
                "edge_perceptron: expected atoms, edges and radial functions of two dimensions, found ",
                of_centres.sizes(), ", ", of_neighbours.sizes(), ", ", edges.sizes(), " and ", radial.sizes());
    TORCH_CHECK(weights.size() == n_weights, "edge_perceptron: expected ", n_weights, " weights, found ",
                weights.size());
    n_owned = of_centres.sym_size(0);
    n_nodes = of_neighbours.sym_size(0);
    n_edges = edges.sym_size(0);
    n_channels = fixed_size(edges, 1);
    n_radial = fixed_size(radial, 1);
    const auto expect = [&](const char* name, const Tensor& tensor, const std::vector<c10::SymInt>& sizes,
                            at::ScalarType type) {
      TORCH_CHECK(tensor.sym_sizes() == sizes && tensor.scalar_type() == type, "edge_perceptron: expected ", name, " ",
                  c10::SymIntArrayRef(sizes), " of ", type, ", found ", tensor.sym_sizes(), " of ",
                  tensor.scalar_type());
    };
    const at::ScalarType type = edges.scalar_type();
    expect("of_centres", of_centres, {n_owned, 2 * n_channels}, type);
    expect("of_neighbours", of_neighbours, {n_nodes, 2 * n_channels}, type);
    expect("radial", radial, {n_edges, n_radial}, type);
    expect("edge_index", edge_index, {2, n_edges}, at::kLong);
    expect("weights[0]", weights[of_edges], {n_channels, 2 * n_channels}, type);
    expect("weights[1]", weights[second_matrices], {2, n_channels, n_channels}, type);
    expect("weights[2]", weights[second_biases], {2 * n_channels}, type);
    expect("weights[3]", weights[of_radial], {n_radial, n_channels}, type);
  }

  std::int64_t n_kept() const { return 5 * n_channels; }
};

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, differentiable, and all edges at once.
Tensor reference(const Tensor& of_centres, const Tensor& of_neighbours, const Tensor& edges, const Tensor& radial,
                 const Tensor& edge_index, at::TensorList weights, bool to_atoms) {
  const Plan plan(of_centres, of_neighbours, edges, radial, edge_index, weights);
  const Tensor &centres = edge_index[0], &neighbours = edge_index[1];
  const Tensor hidden = at::silu(of_centres.index_select(0, centres) + of_neighbours.index_select(0, neighbours) +
                                 at::matmul(edges, weights[of_edges]));
  const auto half = [&](std::int64_t k) {
    return at::matmul(hidden.narrow(1, k * plan.n_channels, plan.n_channels), weights[second_matrices][k]) +
           weights[second_biases].narrow(0, k * plan.n_channels, plan.n_channels);
  };
  const Tensor gated = at::silu(half(0)) * at::sigmoid(half(1));
  const Tensor factors = at::matmul(radial, weights[of_radial]);
  if (!to_atoms) return edges + gated * factors;
  return at::zeros_symint({plan.n_owned, plan.n_channels}, edges.options())
      .index_add(0, centres, gated * at::silu(factors));
}

/// Autograd keeps what the pass back of torch's operators needs.
std::tuple<Tensor, Tensor> reference_and_nothing(const Tensor& of_centres, const Tensor& of_neighbours,
                                                 const Tensor& edges, const Tensor& radial, const Tensor& edge_index,
                                                 at::TensorList weights, bool to_atoms, bool) {
  return {reference(of_centres, of_neighbours, edges, radial, edge_index, weights, to_atoms),
          at::empty({0}, edges.options())};
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Contiguous inputs with edges in the order of their centres, and the kernels' view of them.
template <typename T>
struct CpuCall {
  Plan plan;
  bool to_atoms;
  Tensor edge_index;
  EdgesByCentre by_centre;
  Tensor of_centres, of_neighbours, edges, radial;
  std::vector<Tensor> weights;
  PerceptronProblem<T> problem{};
  PackedMatrix<T> first;                ///< weights[0], or its transpose for the pass back
  std::vector<PackedMatrix<T>> second;  ///< likewise, of values and of gates
  const EdgePerceptronKernels<T>& kernels = *instruction_set().kernels<T>().edge_perceptron;

  CpuCall(const Tensor& of_centres_, const Tensor& of_neighbours_, const Tensor& edges_, const Tensor& radial_,
          const Tensor& edge_index_, at::TensorList weights_, bool to_atoms_, bool back)
      : plan(of_centres_, of_neighbours_, edges_, radial_, edge_index_, weights_),
        to_atoms(to_atoms_),
        edge_index(edge_index_.contiguous()),
        by_centre("edge_perceptron", edge_index, plan.n_owned.expect_int(), plan.n_nodes.expect_int()),
        of_centres(of_centres_.contiguous()),
        of_neighbours(of_neighbours_.contiguous()),
        edges(by_centre.in_order(edges_)),
        radial(by_centre.in_order(radial_)),
        weights(contiguous(weights_)) {
    if (!by_centre.order.empty()) edge_index = by_centre.in_order(edge_index.t()).t().contiguous();
    problem.n_channels = plan.n_channels;
    problem.n_radial = plan.n_radial;
    problem.to_atoms = to_atoms;
    problem.of_centres = of_centres.template const_data_ptr<T>();
    problem.of_neighbours = of_neighbours.template const_data_ptr<T>();
    problem.biases = weights[second_biases].template const_data_ptr<T>();
    problem.radial_matrix = weights[of_radial].template const_data_ptr<T>();
    const auto packed = [&](const Tensor& matrix) { return PackedMatrix<T>(back ? matrix.t() : matrix); };
    first = packed(weights[of_edges]);
    for (std::int64_t k = 0; k < 2; ++k) second.push_back(packed(weights[second_matrices][k]));
  }
};

/// The steps of one block of edges, and the memory of what they make.
template <typename T>
class Block {
 public:
  explicit Block(const CpuCall<T>& call)
      : call_(call),
        channels_(call.plan.n_channels),
        hidden_(at::empty({block_size, 2 * channels_}, call.edges.options())),
        values_and_gates_(at::empty({block_size, 2 * channels_}, call.edges.options())) {}

  /// The edges at positions [begin, end) in the order of centres.
  void take(std::int64_t begin, std::int64_t end) {
    const std::int64_t* const ends = call_.edge_index.template const_data_ptr<std::int64_t>();
    begin_ = begin;
    block_ = {end - begin, ends + begin, ends + call_.edge_index.size(1) + begin, row(call_.edges), row(call_.radial)};
  }

  /// Writes the results of edges, or adds to those of centres, and keeps what `back` needs unless `kept` is empty.
  void forward(const Tensor& result, const Tensor& kept) {
    const bool keep = kept.numel() > 0;
    const PerceptronRows<T> slopes{keep ? row(kept) : nullptr, keep ? kept.size(1) : 0};
    call_.kernels.gather(call_.problem, block_, data(hidden_));
    call_.first.multiply(block_.n, row(call_.edges), data(hidden_), true);
    call_.kernels.activate(call_.problem, block_.n, data(hidden_), slopes);
    multiply_halves(hidden_, values_and_gates_);
    call_.kernels.gate(call_.problem, block_, data(values_and_gates_), call_.to_atoms ? data(result) : row(result),
                       {keep ? slopes.data + 2 * channels_ : nullptr, slopes.stride});
  }

  /// Gradients of all that the result was made of, from what `forward` kept. Those of atoms are added to, and may be
  /// empty.
  void back(const Tensor& kept, const Tensor& of_result, const Tensor& to_centres, const Tensor& to_neighbours,
            const Tensor& to_edges, const Tensor& to_radial) {
    const PerceptronRows<const T> slopes{row(kept), kept.size(1)};
    call_.kernels.gate_backward(call_.problem, block_, {slopes.data + 2 * channels_, slopes.stride},
                                call_.to_atoms ? data(of_result) : row(of_result), data(values_and_gates_),
                                row(to_radial));
    multiply_halves(values_and_gates_, hidden_);
    const bool atoms = to_centres.numel() > 0;
    call_.kernels.activate_backward(call_.problem, block_, slopes, data(hidden_), atoms ? data(to_centres) : nullptr,
                                    atoms ? data(to_neighbours) : nullptr);
    if (!call_.to_atoms) std::copy_n(row(of_result), block_.n * channels_, row(to_edges));
    call_.first.multiply(block_.n, data(hidden_), row(to_edges), !call_.to_atoms);
  }

 private:
  static T* data(const Tensor& tensor) { return tensor.template data_ptr<T>(); }
  /// Of the first edge.
  T* row(const Tensor& tensor) const { return data(tensor) + begin_ * tensor.size(1); }

  /// The columns of values and those of gates, each times its matrix.
  void multiply_halves(const Tensor& from, const Tensor& to) const {
    for (std::int64_t k = 0; k < 2; ++k)
      call_.second[k].multiply(block_.n, data(from) + k * channels_, 2 * channels_, data(to) + k * channels_,
                               2 * channels_);
  }

  const CpuCall<T>& call_;
  std::int64_t channels_, begin_ = 0;
  PerceptronBlock<T> block_{};
  Tensor hidden_, values_and_gates_;
};

/// body(chunk, a block of edges of it) for all edges.
template <typename T, typename Body>
void for_blocks(const CpuCall<T>& call, const std::vector<std::int64_t>& bounds, Body&& body) {
  for_chunks(call.by_centre, bounds, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
    Block<T> block(call);
    for (; begin < end; begin += block_size) {
      block.take(begin, std::min(begin + block_size, end));
      body(chunk, block);
    }
  });
}

std::tuple<Tensor, Tensor> forward_cpu(const Tensor& of_centres, const Tensor& of_neighbours, const Tensor& edges,
                                       const Tensor& radial, const Tensor& edge_index, at::TensorList weights,
                                       bool to_atoms, bool keep) {
  Tensor result, kept;
  AT_DISPATCH_FLOATING_TYPES(edges.scalar_type(), "edge_perceptron", [&] {
    const CpuCall<scalar_t> call(of_centres, of_neighbours, edges, radial, edge_index, weights, to_atoms, false);
    kept = at::empty({keep ? edges.size(0) : 0, call.plan.n_kept()}, edges.options());
    result = to_atoms ? at::zeros({of_centres.size(0), edges.size(1)}, edges.options())
                      : at::empty(edges.sizes(), edges.options());
    for_blocks(call, call.by_centre.chunks(),
               [&](std::int64_t, Block<scalar_t>& block) { block.forward(result, kept); });
    if (!to_atoms) result = call.by_centre.as_given(result);
  });
  return {result, kept};
}

/// -> gradients of of_centres, of_neighbours (empty when not wanted), edges, radial
std::tuple<Tensor, Tensor, Tensor, Tensor> backward_cpu(const Tensor& gradient, const Tensor& kept,
                                                        const Tensor& of_centres, const Tensor& of_neighbours,
                                                        const Tensor& edges, const Tensor& radial,
                                                        const Tensor& edge_index, at::TensorList weights, bool to_atoms,
                                                        bool atoms_wanted) {
  const auto zeros = [&](const Tensor& atoms) {
    return at::zeros(atoms_wanted ? atoms.sizes() : at::IntArrayRef({0}), atoms.options());
  };
  Tensor to_centres = zeros(of_centres), to_neighbours, to_edges, to_radial;
  AT_DISPATCH_FLOATING_TYPES(edges.scalar_type(), "edge_perceptron_backward", [&] {
    const CpuCall<scalar_t> call(of_centres, of_neighbours, edges, radial, edge_index, weights, to_atoms, true);
    TORCH_CHECK(gradient.dim() == 2 && gradient.size(0) == (to_atoms ? of_centres : edges).size(0) &&
                    gradient.size(1) == edges.size(1) && gradient.scalar_type() == edges.scalar_type(),
                "edge_perceptron_backward: the gradient ", gradient.sizes(), " does not fit edges ", edges.sizes());
    TORCH_CHECK(kept.sizes() == at::IntArrayRef({edges.size(0), call.plan.n_kept()}) && kept.is_contiguous() &&
                    kept.scalar_type() == edges.scalar_type(),
                "edge_perceptron_backward: nothing was kept for it");
    const Tensor of_result = to_atoms ? gradient.contiguous() : call.by_centre.in_order(gradient);
    to_edges = at::empty(edges.sizes(), edges.options());
    to_radial = at::empty(radial.sizes(), radial.options());
    const std::vector<std::int64_t> bounds = call.by_centre.chunks();
    std::vector<Tensor> of_chunks;  // edges of several chunks may have one neighbour
    for (std::size_t chunk = 1; chunk < bounds.size(); ++chunk) of_chunks.push_back(zeros(of_neighbours));
    for_blocks(call, bounds, [&](std::int64_t chunk, Block<scalar_t>& block) {
      block.back(kept, of_result, to_centres, of_chunks[chunk], to_edges, to_radial);
    });
    to_neighbours = of_chunks[0];
    for (std::size_t chunk = 1; chunk < of_chunks.size(); ++chunk) to_neighbours.add_(of_chunks[chunk]);
    to_edges = call.by_centre.as_given(to_edges);
    to_radial = call.by_centre.as_given(to_radial);
  });
  return {to_centres, to_neighbours, to_edges, to_radial};
}

// ---- autograd ------------------------------------------------------------------------------------------------

const auto& forward_operator() {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mlip::edge_perceptron", "").typed<decltype(forward_cpu)>();
  return op;
}

std::tuple<Tensor, Tensor> forward_autograd(const Tensor& of_centres, const Tensor& of_neighbours, const Tensor& edges,
                                            const Tensor& radial, const Tensor& edge_index, at::TensorList weights,
                                            bool to_atoms, bool keep) {
  if (!edges.is_cpu())
    return reference_and_nothing(of_centres, of_neighbours, edges, radial, edge_index, weights, to_atoms, keep);
  const auto forward = [&]() -> Recorded {
    const auto [result, kept] =
        forward_operator().call(of_centres, of_neighbours, edges, radial, edge_index, weights, to_atoms, true);
    return {{result}, {kept, of_centres, of_neighbours, edges, radial, edge_index}};
  };
  const std::vector<Tensor> inputs = {of_centres, of_neighbours, edges, radial};
  if (needs_gradient(inputs))
    return {record(inputs, forward,
                   [weights = weights.vec(), to_atoms](const auto& gradients, const auto& kept,
                                                       const auto& wanted) -> std::vector<Tensor> {
                     const LastDerivative only("edge_perceptron");
                     static const auto op = c10::Dispatcher::singleton()
                                                .findSchemaOrThrow("mlip::edge_perceptron_backward", "")
                                                .typed<decltype(backward_cpu)>();
                     const bool atoms_wanted = wanted[0] || wanted[1];
                     auto [centres, neighbours, of_edges, of_radial] =
                         op.call(gradients[0], kept[0], kept[1], kept[2], kept[3], kept[4], kept[5], weights, to_atoms,
                                 atoms_wanted);
                     if (!atoms_wanted) centres = neighbours = Tensor();
                     return {centres, neighbours, of_edges, of_radial};
                   })[0],
            at::empty({0}, edges.options())};
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return forward_operator().call(of_centres, of_neighbours, edges, radial, edge_index, weights, to_atoms, keep);
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "edge_perceptron(Tensor of_centres, Tensor of_neighbours, Tensor edges, Tensor radial, Tensor edge_index, "
      "Tensor[] weights, bool to_atoms, bool keep) -> (Tensor, Tensor)");
  library.def(
      "edge_perceptron_backward(Tensor gradient, Tensor kept, Tensor of_centres, Tensor of_neighbours, Tensor edges, "
      "Tensor radial, Tensor edge_index, Tensor[] weights, bool to_atoms, bool atoms_wanted) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "edge_perceptron_reference(Tensor of_centres, Tensor of_neighbours, Tensor edges, Tensor radial, "
      "Tensor edge_index, Tensor[] weights, bool to_atoms) -> Tensor",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("edge_perceptron", mlip::forward_cpu);
  library.impl("edge_perceptron_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) {
  library.impl("edge_perceptron", mlip::reference_and_nothing);
}

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("edge_perceptron", mlip::forward_autograd); }
