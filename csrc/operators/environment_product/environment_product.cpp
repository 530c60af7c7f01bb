// The operator `mlip::environment_product`: the tensor product of the features of each edge with the environment of its
// centre, which is the sum over all edges of the centre of their weighted harmonics. It is a layer of Allegro.
//
//   environment_product(features, weights, harmonics, edge_index, n_owned, terms, coefficients, feature_blocks,
//                       weight_blocks) -> product [n_edges, n3, channels], scalars [n_edges, channels]
//
//   env[i][m2][u]         = Σ_{edges e of i} Y[e][m2] w[e][weight_blocks[m2]][u]
//   product[e][m3][u]     = Σ_terms (m1, m2, m3) c[term][u] x[e][m1][u] env[centre of e][m2][u]
//   scalars               = product[:, 0], apart, so that its gradient need not be added to that of the product
//
//   features        [n_edges, n1, channels]; or, with feature_blocks, weights [n_edges, blocks, channels] of features
//                   that are weighted harmonics: x[e][m1][u] = Y[e][m1] features[e][feature_blocks[m1]][u]
//   weights         w, [n_edges, blocks, channels]
//   harmonics       Y, [n_edges, n2]
//   edge_index      int64 [2, n_edges], of which the centres, in [0, n_owned), are read
//   terms           int[], three numbers each: m1, m2, m3; ordered by m1, then m3
//   coefficients    c, [n_terms, channels], constants without a gradient
//   feature_blocks  int[], the block of each of the n1 = n2 components; or -1 alone, for features that are given by
//                   component (AOTInductor passes no empty lists)
//   weight_blocks   int[], the block of each of the n2 components
//
// Layout: component-major, as in edge_tensor_product_kernels.h. The CPU has kernels of its own, for the pass back too.
// They store nothing but the results: environments are summed again in the pass back. Edges that are not stored centre
// by centre are put in order first. Other devices compute the same from torch's own operators, which is also the
// reference that the tests use: `mlip::environment_product_reference`.
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

#include "operators/aligned_memory.h"
#include "operators/autograd.h"
#include "operators/edges_by_centre.h"
#include "operators/environment_product/environment_product_kernels.h"
#include "operators/instruction_sets.h"
#include "operators/tracing.h"

namespace mlip {
namespace {

using at::Tensor;

/// The integers of a call, unpacked and checked against the tensors.
struct Plan {
  std::int64_t n1, n2, n3 = 0, channels;
  std::vector<std::int64_t> row, environment, column;  ///< m1, m2, m3 of each term
  std::vector<std::int64_t> feature_blocks, weight_blocks;

  Plan(const Tensor& features, const Tensor& weights, const Tensor& harmonics, const Tensor& edge_index,
       at::IntArrayRef terms, const Tensor& coefficients, at::IntArrayRef feature_blocks_,
       at::IntArrayRef weight_blocks_)
      : feature_blocks(feature_blocks_.vec()), weight_blocks(weight_blocks_.vec()) {
    if (feature_blocks == std::vector<std::int64_t>{-1}) feature_blocks.clear();
    const c10::SymInt n_edges = edge_index.sym_size(1);
    for (const Tensor* tensor : {&features, &weights, &harmonics, &coefficients})
      TORCH_CHECK(tensor->is_floating_point() && tensor->scalar_type() == features.scalar_type(),
                  "environment_product: all floating-point inputs must have one type");
    TORCH_CHECK(features.dim() == 3 && weights.dim() == 3 && features.sym_size(0) == n_edges &&
                    weights.sym_size(0) == n_edges && fixed_size(weights, 2) == fixed_size(features, 2),
                "environment_product: expected features and weights [", n_edges,
                ", components or blocks, channels], found ", features.sizes(), " and ", weights.sizes());
    TORCH_CHECK(harmonics.dim() == 2 && harmonics.sym_size(0) == n_edges, "environment_product: expected harmonics [",
                n_edges, ", components], found ", harmonics.sizes());
    n2 = fixed_size(harmonics, 1);
    n1 = feature_blocks.empty() ? fixed_size(features, 1) : n2;
    channels = fixed_size(features, 2);
    const auto fit = [&](const std::vector<std::int64_t>& blocks, const Tensor& tensor) {
      return static_cast<std::int64_t>(blocks.size()) == n2 &&
             std::all_of(blocks.begin(), blocks.end(),
                         [&](auto block) { return block >= 0 && block < fixed_size(tensor, 1); });
    };
    TORCH_CHECK((feature_blocks.empty() || fit(feature_blocks, features)) && fit(weight_blocks, weights),
                "environment_product: blocks of ", n2, " components do not fit features ", features.sizes(),
                " and weights ", weights.sizes());
    const std::int64_t n_terms = static_cast<std::int64_t>(terms.size() / 3);
    TORCH_CHECK(terms.size() % 3 == 0 && n_terms > 0 && coefficients.dim() == 2 && coefficients.size(0) == n_terms &&
                    coefficients.size(1) == channels,
                "environment_product: expected terms of three numbers each and coefficients [n_terms, ", channels,
                "], found ", terms.size(), " numbers and ", coefficients.sizes());
    for (std::int64_t t = 0; t < n_terms; ++t) {
      const std::int64_t* const term = terms.data() + 3 * t;
      TORCH_CHECK(term[0] >= 0 && term[0] < n1 && term[1] >= 0 && term[1] < n2 && term[2] >= 0 &&
                      (t == 0 || std::pair(row.back(), column.back()) <= std::pair(term[0], term[2])),
                  "environment_product: term ", t, " does not fit ", n1, " and ", n2,
                  " components, or is out of order");
      row.push_back(term[0]);
      environment.push_back(term[1]);
      column.push_back(term[2]);
      n3 = std::max(n3, term[2] + 1);
    }
  }
};

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, differentiable, and slow.
std::tuple<Tensor, Tensor> reference(const Tensor& features, const Tensor& weights, const Tensor& harmonics,
                                     const Tensor& edge_index, c10::SymInt n_owned, at::IntArrayRef terms,
                                     const Tensor& coefficients, at::IntArrayRef feature_blocks,
                                     at::IntArrayRef weight_blocks) {
  const Plan plan(features, weights, harmonics, edge_index, terms, coefficients, feature_blocks, weight_blocks);
  const auto indices = [&](at::IntArrayRef values) { return constant(values, edge_index.options()); };
  const auto weighted = [&](const Tensor& factors, at::IntArrayRef blocks) {
    return harmonics.unsqueeze(2) * factors.index_select(1, indices(blocks));
  };
  const Tensor& centres = edge_index[0];
  const Tensor x = plan.feature_blocks.empty() ? features : weighted(features, plan.feature_blocks);
  const Tensor environment = at::zeros_symint({std::move(n_owned), plan.n2, plan.channels}, features.options())
                                 .index_add(0, centres, weighted(weights, weight_blocks));
  // One matrix [n1 n2, n3] for each channel.
  std::vector<std::int64_t> places;
  for (std::size_t t = 0; t < plan.row.size(); ++t)
    places.push_back((plan.row[t] * plan.n2 + plan.environment[t]) * plan.n3 + plan.column[t]);
  const Tensor matrices = at::zeros({plan.channels, plan.n1 * plan.n2 * plan.n3}, features.options())
                              .index_add(1, indices(places), coefficients.t())
                              .view({plan.channels, plan.n1 * plan.n2, plan.n3});
  const Tensor outer = (x.unsqueeze(2) * environment.index_select(0, centres).unsqueeze(1)).flatten(1, 2);
  const Tensor product = at::bmm(outer.permute({2, 0, 1}), matrices).permute({1, 2, 0}).contiguous();
  return {product, product.select(1, 0).contiguous()};
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Contiguous inputs and the kernels' view of them.
template <typename T>
struct CpuCall {
  Tensor features, weights, harmonics, edge_index, coefficients;
  Plan plan;
  EdgesByCentre edges;
  std::vector<std::int64_t> first_term, entry_row, entry_column, first_entry, column_entry, column_row, first_in_column;
  EnvironmentProblem<T> problem{};

  CpuCall(const Tensor& features_, const Tensor& weights_, const Tensor& harmonics_, const Tensor& edge_index_,
          std::int64_t n_owned, at::IntArrayRef terms, const Tensor& coefficients_, at::IntArrayRef feature_blocks,
          at::IntArrayRef weight_blocks)
      : features(features_.contiguous()),
        weights(weights_.contiguous()),
        harmonics(harmonics_.contiguous()),
        edge_index(edge_index_.contiguous()),
        coefficients(coefficients_.contiguous()),
        plan(features, weights, harmonics, edge_index, terms, coefficients, feature_blocks, weight_blocks),
        edges("environment_product", edge_index.const_data_ptr<std::int64_t>(), edge_index.size(1), n_owned) {
    find_entries();
    problem.n1 = plan.n1;
    problem.n2 = plan.n2;
    problem.n3 = plan.n3;
    problem.channels = plan.channels;
    problem.n_feature_blocks = plan.feature_blocks.empty() ? 0 : features.size(1);
    problem.n_weight_blocks = weights.size(1);
    problem.feature_blocks = plan.feature_blocks.data();
    problem.weight_blocks = plan.weight_blocks.data();
    problem.n_terms = static_cast<std::int64_t>(plan.row.size());
    problem.n_entries = static_cast<std::int64_t>(entry_row.size());
    problem.term_environment = plan.environment.data();
    problem.first_term = first_term.data();
    problem.entry_column = entry_column.data();
    problem.first_entry = first_entry.data();
    problem.column_entry = column_entry.data();
    problem.column_row = column_row.data();
    problem.first_in_column = first_in_column.data();
    problem.coefficients = coefficients.const_data_ptr<T>();
    problem.first_edge = edges.first.data();
    problem.edge_order = edges.order.empty() ? nullptr : edges.order.data();
    for (std::int64_t i = 0; i < n_owned; ++i)
      problem.most_edges = std::max(problem.most_edges, edges.first[i + 1] - edges.first[i]);
    problem.features = features.const_data_ptr<T>();
    problem.weights = weights.const_data_ptr<T>();
    problem.harmonics = harmonics.const_data_ptr<T>();
  }

  /// The entries of M: pairs (m1, m3), row by row as the terms are, and column by column.
  void find_entries() {
    first_entry.assign(plan.n1 + 1, 0);
    first_in_column.assign(plan.n3 + 1, 0);
    for (std::size_t t = 0; t < plan.row.size(); ++t) {
      if (t > 0 && plan.row[t] == plan.row[t - 1] && plan.column[t] == plan.column[t - 1]) continue;
      first_term.push_back(static_cast<std::int64_t>(t));
      entry_row.push_back(plan.row[t]);
      entry_column.push_back(plan.column[t]);
      ++first_entry[plan.row[t] + 1];
      ++first_in_column[plan.column[t] + 1];
    }
    first_term.push_back(static_cast<std::int64_t>(plan.row.size()));
    std::partial_sum(first_entry.begin(), first_entry.end(), first_entry.begin());
    std::partial_sum(first_in_column.begin(), first_in_column.end(), first_in_column.begin());
    column_entry.resize(entry_row.size());
    std::iota(column_entry.begin(), column_entry.end(), 0);
    std::stable_sort(column_entry.begin(), column_entry.end(),
                     [&](auto a, auto b) { return entry_column[a] < entry_column[b]; });
    for (const std::int64_t entry : column_entry) column_row.push_back(entry_row[entry]);
  }

  static const EnvironmentProductKernels<T>& kernels() { return *instruction_set().kernels<T>().environment_product; }

  /// body(first centre, last centre + 1, scratch)
  template <typename Body>
  void for_centres(Body&& body) const {
    const std::vector<std::int64_t> bounds = edges.chunks();
    at::parallel_for(0, static_cast<std::int64_t>(bounds.size()) - 1, 1, [&](std::int64_t begin, std::int64_t end) {
      const AlignedMemory<T> scratch(scratch_size(problem));
      body(bounds[begin], bounds[end], scratch.data());
    });
  }
};

std::tuple<Tensor, Tensor> forward_cpu(const Tensor& features, const Tensor& weights, const Tensor& harmonics,
                                       const Tensor& edge_index, std::int64_t n_owned, at::IntArrayRef terms,
                                       const Tensor& coefficients, at::IntArrayRef feature_blocks,
                                       at::IntArrayRef weight_blocks) {
  const std::int64_t n_edges = edge_index.size(1);
  Tensor product, scalars;
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "environment_product", [&] {
    const CpuCall<scalar_t> call(features, weights, harmonics, edge_index, n_owned, terms, coefficients, feature_blocks,
                                 weight_blocks);
    product = at::empty({n_edges, call.plan.n3, call.plan.channels}, features.options());
    scalars = at::empty({n_edges, call.plan.channels}, features.options());
    scalar_t* const of_product = product.data_ptr<scalar_t>();
    scalar_t* const of_scalars = scalars.data_ptr<scalar_t>();
    call.for_centres([&](std::int64_t begin, std::int64_t end, scalar_t* scratch) {
      call.kernels().forward(call.problem, of_product, of_scalars, begin, end, scratch);
    });
  });
  return {product, scalars};
}

/// -> gradients of features, weights, harmonics
std::tuple<Tensor, Tensor, Tensor> backward_cpu(const Tensor& product_gradient, const Tensor& scalars_gradient,
                                                const Tensor& features, const Tensor& weights, const Tensor& harmonics,
                                                const Tensor& edge_index, at::IntArrayRef terms,
                                                const Tensor& coefficients, at::IntArrayRef feature_blocks,
                                                at::IntArrayRef weight_blocks) {
  Tensor of_features = at::empty(features.sizes(), features.options());
  Tensor of_weights = at::empty(weights.sizes(), weights.options());
  Tensor of_harmonics = at::empty(harmonics.sizes(), harmonics.options());
  const std::int64_t n_edges = edge_index.size(1);
  const std::int64_t n_owned = n_edges > 0 ? edge_index[0].max().item<std::int64_t>() + 1 : 0;
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "environment_product_backward", [&] {
    const CpuCall<scalar_t> call(features, weights, harmonics, edge_index, n_owned, terms, coefficients, feature_blocks,
                                 weight_blocks);
    const std::int64_t channels = call.plan.channels;
    TORCH_CHECK(product_gradient.numel() == n_edges * call.plan.n3 * channels &&
                    scalars_gradient.numel() == n_edges * channels &&
                    product_gradient.scalar_type() == features.scalar_type() &&
                    scalars_gradient.scalar_type() == features.scalar_type(),
                "environment_product_backward: a gradient has the wrong shape or type");
    const Tensor of_product = product_gradient.contiguous(), of_scalars = scalars_gradient.contiguous();
    const EnvironmentGradients<scalar_t> gradients{
        of_product.const_data_ptr<scalar_t>(), of_scalars.const_data_ptr<scalar_t>(), of_features.data_ptr<scalar_t>(),
        of_weights.data_ptr<scalar_t>(), of_harmonics.data_ptr<scalar_t>()};
    call.for_centres([&](std::int64_t begin, std::int64_t end, scalar_t* scratch) {
      call.kernels().backward(call.problem, gradients, begin, end, scratch);
    });
  });
  return {of_features, of_weights, of_harmonics};
}

// ---- autograd ------------------------------------------------------------------------------------------------

// The count is a SymInt, as in ghost_gather.cpp.
std::tuple<Tensor, Tensor> forward_autograd(const Tensor& features, const Tensor& weights, const Tensor& harmonics,
                                            const Tensor& edge_index, c10::SymInt n_owned, at::IntArrayRef terms,
                                            const Tensor& coefficients, at::IntArrayRef feature_blocks,
                                            at::IntArrayRef weight_blocks) {
  if (!features.is_cpu())
    return reference(features, weights, harmonics, edge_index, std::move(n_owned), terms, coefficients, feature_blocks,
                     weight_blocks);
  const auto forward = [&]() -> Recorded {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("mlip::environment_product", "")
                               .typed<decltype(forward_autograd)>();
    const auto [product, scalars] =
        op.call(features, weights, harmonics, edge_index, n_owned, terms, coefficients, feature_blocks, weight_blocks);
    return {{product, scalars}, {features, weights, harmonics, edge_index, coefficients}};
  };
  const auto outputs =
      record({features, weights, harmonics}, forward,
             [terms = terms.vec(), feature_blocks = feature_blocks.vec(), weight_blocks = weight_blocks.vec()](
                 const auto& gradients, const auto& kept, const auto&) -> std::vector<Tensor> {
               const LastDerivative only("environment_product");
               static const auto op = c10::Dispatcher::singleton()
                                          .findSchemaOrThrow("mlip::environment_product_backward", "")
                                          .typed<decltype(backward_cpu)>();
               const auto [of_features, of_weights, of_harmonics] =
                   op.call(gradients[0], gradients[1], kept[0], kept[1], kept[2], kept[3], terms, kept[4],
                           feature_blocks, weight_blocks);
               return {of_features, of_weights, of_harmonics};
             });
  return {outputs[0], outputs[1]};
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "environment_product(Tensor features, Tensor weights, Tensor harmonics, Tensor edge_index, SymInt n_owned, "
      "int[] terms, Tensor coefficients, int[] feature_blocks, int[] weight_blocks) -> (Tensor, Tensor)");
  library.def(
      "environment_product_backward(Tensor product_gradient, Tensor scalars_gradient, Tensor features, "
      "Tensor weights, Tensor harmonics, Tensor edge_index, int[] terms, Tensor coefficients, int[] feature_blocks, "
      "int[] weight_blocks) -> (Tensor, Tensor, Tensor)");
  library.def(
      "environment_product_reference(Tensor features, Tensor weights, Tensor harmonics, Tensor edge_index, "
      "SymInt n_owned, int[] terms, Tensor coefficients, int[] feature_blocks, int[] weight_blocks) -> (Tensor, "
      "Tensor)",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("environment_product", mlip::forward_cpu);
  library.impl("environment_product_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("environment_product", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("environment_product", mlip::forward_autograd); }
