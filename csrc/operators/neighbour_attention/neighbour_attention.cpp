// The operator `mlip::neighbour_attention`: So3krates' attention between the neighbours of each atom, from what linear
// layers make of atoms to the sums over neighbours.
//
//   neighbour_attention(queries, keys, values, vectors, radial, cutoffs, harmonics, edge_index, n_heads, degrees,
//   table,
//     step, factors, perceptron, kink) -> messages [n_owned, n_features], vector_messages [n_owned, n_m]
//
// of an edge e from i to j, where l counts degrees:
//   s[e][l]               = Σ_{m of l} factors[m] (x[j][m] - x[i][m])²
//   w[e]                  = radial weights of e + perceptron(s[e])
//   a[e][h]               = cutoffs[e] Σ_{channels u of head h} q[i][u] k[j][u] w[e][u]
//   messages[i][u]        = Σ_{edges e of i} a[e][head of u] v[j][u]
//   vector_messages[i][m] = Σ_{edges e of i} a[e][n_heads + l of m] Y[e][m]
//
//   queries     q, [n_owned, 2 n_features]. The first n_features channels are those of n_heads heads, which weigh
//               values; the others those of one head for each degree, which weigh harmonics. Heads of one kind are
//               equally wide.
//   keys        k, [n_nodes, 2 n_features]
//   values      v, [n_nodes, n_features]
//   vectors     x, [n_nodes, n_m]
//   radial      weights [n_edges, 2 n_features]; or, when `table` is not empty, distances [n_edges] in Å
//   cutoffs     [n_edges]
//   harmonics   Y, [n_edges, n_m]
//   edge_index  int64 [2, n_edges]: centres i in [0, n_owned), neighbours j in [0, n_nodes)
//   degrees     int[], how many components each degree has; their sum is n_m
//   table       of 2 n_features weights over the distance, in intervals of `step` (Å), with a kink at a knot or none
//               (0): radial_table_layout.h has the formulas. A distance that is not a number is an error
//   factors     [n_m]
//   perceptron  matrix [n_degrees, 2 n_hidden] and bias [2 n_hidden], then silu, then two matrices [2, n_hidden,
//               n_features]: the first half of the hidden values is for the first half of w. Without hidden values
//               vectors are not read.
//
// The table, the factors and the perceptron are constants without a gradient.
//
// The CPU takes some edges at a time through all steps and stores nothing but the results: the pass back makes w again.
// Other devices compute the same from torch's own operators, which is also the reference that the tests use:
// `mlip::neighbour_attention_reference`.
#include <torch/script.h>

#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

#include "operators/autograd.h"
#include "operators/edge_blocks.h"
#include "operators/edges_by_centre.h"
#include "operators/instruction_sets.h"
#include "operators/neighbour_attention/neighbour_attention_kernels.h"
#include "operators/packed_matrix.h"
#include "operators/radial_table.h"
#include "operators/tracing.h"

namespace mlip {
namespace {

using at::Tensor;

/// What `perceptron` holds, by its place.
constexpr int first_matrix = 0, first_bias = 1, second_matrices = 2;
constexpr std::size_t n_perceptron = 3;

/// The inputs that have a gradient.
struct Inputs {
  Tensor queries, keys, values, vectors, radial, cutoffs, harmonics;

  Inputs contiguous() const {
    return {queries.contiguous(), keys.contiguous(),    values.contiguous(),   vectors.contiguous(),
            radial.contiguous(),  cutoffs.contiguous(), harmonics.contiguous()};
  }
};

/// The sizes of a call, checked against the tensors.
struct Plan {
  c10::SymInt n_owned, n_nodes, n_edges;
  std::int64_t n_features, n_heads, n_degrees, n_components, n_hidden;
  std::vector<std::int64_t> first;  ///< [n_degrees + 1]: components of each degree

  Plan(const Inputs& inputs, const Tensor& edge_index, std::int64_t n_heads_, at::IntArrayRef degrees,
       const Tensor& table, double step, const Tensor& factors, at::TensorList perceptron, std::int64_t kink)
      : n_heads(n_heads_), n_degrees(static_cast<std::int64_t>(degrees.size())), first(1, 0) {
    TORCH_CHECK(
        inputs.queries.dim() == 2 && inputs.values.dim() == 2 && edge_index.dim() == 2 &&
            fixed_size(edge_index, 0) == 2,
        "neighbour_attention: expected queries and values of two dimensions and edge_index [2, n_edges], found ",
        inputs.queries.sizes(), ", ", inputs.values.sizes(), " and ", edge_index.sizes());
    TORCH_CHECK(perceptron.size() == n_perceptron && perceptron[second_matrices].dim() == 3,
                "neighbour_attention: expected a perceptron of a matrix, a bias and [2, n_hidden, n_features], found ",
                perceptron.size(), " tensors");
    n_owned = inputs.queries.sym_size(0);
    n_nodes = inputs.values.sym_size(0);
    n_edges = edge_index.sym_size(1);
    n_features = fixed_size(inputs.values, 1);
    n_hidden = perceptron[second_matrices].size(1);
    for (const std::int64_t components : degrees) {
      TORCH_CHECK(components > 0, "neighbour_attention: a degree has ", components, " components");
      first.push_back(first.back() + components);
    }
    n_components = first.back();
    TORCH_CHECK(n_heads > 0 && n_degrees > 0 && n_features % n_heads == 0 && n_features % n_degrees == 0,
                "neighbour_attention: ", n_features, " features are not those of ", n_heads, " equal heads and of ",
                n_degrees, " degrees");
    const auto expect = [&](const char* name, const Tensor& tensor, const std::vector<c10::SymInt>& sizes) {
      TORCH_CHECK(tensor.sym_sizes() == sizes && tensor.scalar_type() == inputs.queries.scalar_type(),
                  "neighbour_attention: expected ", name, " ", c10::SymIntArrayRef(sizes), " of ",
                  inputs.queries.scalar_type(), ", found ", tensor.sym_sizes(), " of ", tensor.scalar_type());
    };
    expect("queries", inputs.queries, {n_owned, 2 * n_features});
    expect("keys", inputs.keys, {n_nodes, 2 * n_features});
    expect("values", inputs.values, {n_nodes, n_features});
    expect("vectors", inputs.vectors, {n_nodes, n_components});
    if (table.numel() > 0)
      expect("distances", inputs.radial, {n_edges});
    else
      expect("radial", inputs.radial, {n_edges, 2 * n_features});
    expect("cutoffs", inputs.cutoffs, {n_edges});
    expect("harmonics", inputs.harmonics, {n_edges, n_components});
    if (table.numel() > 0) check_table("neighbour_attention", table, false, 2 * n_features, kink);
    TORCH_CHECK(step > 0, "neighbour_attention: the table's step is ", step);
    expect("factors", factors, {n_components});
    expect("perceptron[0]", perceptron[first_matrix], {n_degrees, 2 * n_hidden});
    expect("perceptron[1]", perceptron[first_bias], {2 * n_hidden});
    expect("perceptron[2]", perceptron[second_matrices], {2, n_hidden, n_features});
  }
};

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, differentiable, and all edges at once.
std::tuple<Tensor, Tensor> reference(const Tensor& queries, const Tensor& keys, const Tensor& values,
                                     const Tensor& vectors, const Tensor& radial, const Tensor& cutoffs,
                                     const Tensor& harmonics, const Tensor& edge_index, std::int64_t n_heads,
                                     at::IntArrayRef degrees, const Tensor& table, double step, const Tensor& factors,
                                     at::TensorList perceptron, std::int64_t kink) {
  const Plan plan({queries, keys, values, vectors, radial, cutoffs, harmonics}, edge_index, n_heads, degrees, table,
                  step, factors, perceptron, kink);
  const std::int64_t n_features = plan.n_features;
  const Tensor &centres = edge_index[0], &neighbours = edge_index[1];
  std::vector<std::int64_t> places;
  for (std::int64_t l = 0; l < plan.n_degrees; ++l) places.insert(places.end(), degrees[l], l);
  const Tensor degree_of = constant(places, edge_index.options());

  Tensor filters = table.numel() > 0 ? weights_of_table("neighbour_attention", radial, table, step, kink) : radial;
  if (plan.n_hidden > 0) {
    const Tensor differences = vectors.index_select(0, neighbours) - vectors.index_select(0, centres);
    const Tensor squares = at::zeros_symint({plan.n_edges, plan.n_degrees}, vectors.options())
                               .index_add(1, degree_of, differences.square() * factors);
    const Tensor hidden = at::silu(at::matmul(squares, perceptron[first_matrix]) + perceptron[first_bias]);
    const Tensor both = perceptron[second_matrices];
    filters = filters + at::cat({at::matmul(hidden.narrow(1, 0, plan.n_hidden), both[0]),
                                 at::matmul(hidden.narrow(1, plan.n_hidden, plan.n_hidden), both[1])},
                                1);
  }
  const Tensor products = queries.index_select(0, centres) * keys.index_select(0, neighbours) * filters;
  const auto attention = [&](std::int64_t begin, std::int64_t n) {
    return products.narrow(1, begin, n_features).reshape_symint({plan.n_edges, n, n_features / n}).sum(2) *
           cutoffs.unsqueeze(1);
  };
  const Tensor of_values =
      values.index_select(0, neighbours).view_symint({plan.n_edges, n_heads, n_features / n_heads});
  const Tensor messages = (attention(0, n_heads).unsqueeze(2) * of_values).flatten(1);
  const Tensor vector_messages = attention(n_features, plan.n_degrees).index_select(1, degree_of) * harmonics;
  return {
      at::zeros_symint({plan.n_owned, n_features}, values.options()).index_add(0, centres, messages),
      at::zeros_symint({plan.n_owned, plan.n_components}, vectors.options()).index_add(0, centres, vector_messages)};
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Contiguous inputs and the kernels' view of them.
template <typename T>
struct CpuCall {
  Inputs inputs;
  Tensor edge_index, table, factors;
  std::vector<Tensor> perceptron;
  Plan plan;
  EdgesByCentre edges;
  AttentionProblem<T> problem{};
  std::vector<PackedMatrix<T>> to_filters, to_hidden;  ///< the second matrices of both halves, and their transposes
  const NeighbourAttentionKernels<T>& kernels = *instruction_set().kernels<T>().neighbour_attention;

  CpuCall(const Inputs& inputs_, const Tensor& edge_index_, std::int64_t n_heads, at::IntArrayRef degrees,
          const Tensor& table_, double step, const Tensor& factors_, at::TensorList perceptron_, std::int64_t kink,
          bool back)
      : inputs(inputs_.contiguous()),
        edge_index(edge_index_.contiguous()),
        table(table_.contiguous()),
        factors(factors_.contiguous()),
        perceptron(mlip::contiguous(perceptron_)),
        plan(inputs, edge_index, n_heads, degrees, table, step, factors, perceptron, kink),
        edges("neighbour_attention", edge_index, plan.n_owned.expect_int(), plan.n_nodes.expect_int()) {
    if (table.numel() > 0)
      check_distances("neighbour_attention", inputs.radial.template data_ptr<T>(), inputs.radial.numel());
    problem.n_features = plan.n_features;
    problem.n_heads = plan.n_heads;
    problem.n_degrees = plan.n_degrees;
    problem.n_components = plan.n_components;
    problem.n_hidden = 2 * plan.n_hidden;
    problem.first = plan.first.data();
    problem.queries = inputs.queries.template const_data_ptr<T>();
    problem.keys = inputs.keys.template const_data_ptr<T>();
    problem.values = inputs.values.template const_data_ptr<T>();
    problem.vectors = inputs.vectors.template const_data_ptr<T>();
    problem.factors = factors.template const_data_ptr<T>();
    problem.hidden_matrix = perceptron[first_matrix].template const_data_ptr<T>();
    problem.hidden_bias = perceptron[first_bias].template const_data_ptr<T>();
    problem.n_weights = 2 * plan.n_features;
    problem.radial = inputs.radial.template const_data_ptr<T>();
    problem.table = table.numel() > 0 ? table.template const_data_ptr<T>() : nullptr;
    if (problem.table) problem.layout = layout_of(table, false, step, kink);
    if (plan.n_hidden == 0) return;
    for (std::int64_t half = 0; half < 2; ++half) {
      to_filters.emplace_back(perceptron[second_matrices][half]);
      if (back) to_hidden.emplace_back(perceptron[second_matrices][half].t());
    }
  }
};

/// The steps of one block of edges, and the memory of what they make.
template <typename T>
class Block {
 public:
  Block(const CpuCall<T>& call, bool back)
      : call_(call),
        filters_(make(2 * call.plan.n_features)),
        slopes_(make(back && call.problem.table != nullptr ? 2 * call.plan.n_features : 0)),
        sums_(make(2 * call.plan.n_hidden)),
        hidden_(make(2 * call.plan.n_hidden)),
        scratch_(at::empty({scratch_size(call.problem)}, call.inputs.queries.options())) {}

  /// The edges at positions [begin, end) in the order of centres.
  void take(std::int64_t begin, std::int64_t end) {
    edges_.take(call_.edges, call_.edge_index, begin, end);
    block_ = {edges_.n,
              edges_.edges.data(),
              edges_.centres.data(),
              edges_.neighbours.data(),
              call_.inputs.cutoffs.template const_data_ptr<T>(),
              call_.inputs.harmonics.template const_data_ptr<T>()};
  }

  /// Adds the messages to the results.
  void forward(T* messages, T* vector_messages) {
    make_filters();
    call_.kernels.attend(call_.problem, block_, data(filters_), messages, vector_messages, data(scratch_));
  }

  /// Gradients of all that the messages were made of.
  void back(const AttentionGradients<T>& gradients) {
    make_filters();
    call_.kernels.attend_backward(call_.problem, block_, gradients, data(filters_), slopes(), data(scratch_));
    if (call_.plan.n_hidden == 0) return;
    for (std::int64_t half = 0; half < 2; ++half)
      call_.to_hidden[half].multiply(edges_.n, half_of(filters_, half), filters_.size(1), half_of(hidden_, half),
                                     hidden_.size(1));
    call_.kernels.hide_backward(call_.problem, block_, data(sums_), data(hidden_), gradients.vectors, data(scratch_));
  }

 private:
  void make_filters() {
    call_.kernels.weigh(call_.problem, block_, data(filters_), slopes());
    if (call_.plan.n_hidden == 0) return;
    call_.kernels.hide(call_.problem, block_, data(sums_), data(hidden_), data(scratch_));
    for (std::int64_t half = 0; half < 2; ++half)
      call_.to_filters[half].multiply(edges_.n, half_of(hidden_, half), hidden_.size(1), half_of(filters_, half),
                                      filters_.size(1), true);
  }

  Tensor make(std::int64_t width) const { return at::empty({block_size, width}, call_.inputs.queries.options()); }
  T* slopes() const { return slopes_.numel() > 0 ? data(slopes_) : nullptr; }
  static T* data(const Tensor& tensor) { return tensor.template data_ptr<T>(); }
  /// The first or the second half of the columns.
  static T* half_of(const Tensor& tensor, std::int64_t half) { return data(tensor) + half * (tensor.size(1) / 2); }

  const CpuCall<T>& call_;
  BlockOfEdges edges_;
  AttentionBlock<T> block_{};
  Tensor filters_, slopes_, sums_, hidden_, scratch_;
};

/// body(chunk, a block of edges of it) for all edges.
template <typename T, typename Body>
void for_blocks(const CpuCall<T>& call, const std::vector<std::int64_t>& bounds, bool back, Body&& body) {
  for_chunks(call.edges, bounds, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
    Block<T> block(call, back);
    for (; begin < end; begin += block_size) {
      block.take(begin, std::min(begin + block_size, end));
      body(chunk, block);
    }
  });
}

std::tuple<Tensor, Tensor> forward_cpu(const Tensor& queries, const Tensor& keys, const Tensor& values,
                                       const Tensor& vectors, const Tensor& radial, const Tensor& cutoffs,
                                       const Tensor& harmonics, const Tensor& edge_index, std::int64_t n_heads,
                                       at::IntArrayRef degrees, const Tensor& table, double step, const Tensor& factors,
                                       at::TensorList perceptron, std::int64_t kink) {
  Tensor messages, vector_messages;
  AT_DISPATCH_FLOATING_TYPES(queries.scalar_type(), "neighbour_attention", [&] {
    const CpuCall<scalar_t> call({queries, keys, values, vectors, radial, cutoffs, harmonics}, edge_index, n_heads,
                                 degrees, table, step, factors, perceptron, kink, false);
    messages = at::zeros_symint({call.plan.n_owned, call.plan.n_features}, queries.options());
    vector_messages = at::zeros_symint({call.plan.n_owned, call.plan.n_components}, queries.options());
    scalar_t* const to_messages = messages.data_ptr<scalar_t>();
    scalar_t* const to_vectors = vector_messages.data_ptr<scalar_t>();
    for_blocks(call, call.edges.chunks(), false,
               [&](std::int64_t, Block<scalar_t>& block) { block.forward(to_messages, to_vectors); });
  });
  return {messages, vector_messages};
}

using SevenTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

/// -> gradients of queries, keys, values (empty when not wanted), vectors, radial, cutoffs, harmonics
SevenTensors backward_cpu(const Tensor& messages_gradient, const Tensor& vector_messages_gradient,
                          const Tensor& queries, const Tensor& keys, const Tensor& values, const Tensor& vectors,
                          const Tensor& radial, const Tensor& cutoffs, const Tensor& harmonics,
                          const Tensor& edge_index, std::int64_t n_heads, at::IntArrayRef degrees, const Tensor& table,
                          double step, const Tensor& factors, at::TensorList perceptron, std::int64_t kink,
                          bool nodes_wanted) {
  Tensor of_queries = at::zeros(nodes_wanted ? queries.sizes() : at::IntArrayRef({0}), queries.options());
  Tensor of_keys, of_values, of_vectors;
  Tensor of_radial = at::empty(radial.sizes(), radial.options());
  Tensor of_cutoffs = at::empty(cutoffs.sizes(), cutoffs.options());
  Tensor of_harmonics = at::empty(harmonics.sizes(), harmonics.options());
  AT_DISPATCH_FLOATING_TYPES(queries.scalar_type(), "neighbour_attention_backward", [&] {
    const CpuCall<scalar_t> call({queries, keys, values, vectors, radial, cutoffs, harmonics}, edge_index, n_heads,
                                 degrees, table, step, factors, perceptron, kink, true);
    TORCH_CHECK(
        messages_gradient.sym_sizes() == c10::SymIntArrayRef({call.plan.n_owned, call.plan.n_features}) &&
            vector_messages_gradient.sym_sizes() == c10::SymIntArrayRef({call.plan.n_owned, call.plan.n_components}) &&
            messages_gradient.scalar_type() == queries.scalar_type() &&
            vector_messages_gradient.scalar_type() == queries.scalar_type(),
        "neighbour_attention_backward: a gradient has the wrong shape or type");
    const Tensor of_messages = messages_gradient.contiguous(), of_sums = vector_messages_gradient.contiguous();
    const std::vector<std::int64_t> bounds = call.edges.chunks();
    // Edges of several chunks may have one neighbour.
    std::vector<Tensor> of_keys_by_chunk, of_values_by_chunk, of_vectors_by_chunk;
    for (std::size_t chunk = 1; chunk < bounds.size(); ++chunk) {
      const auto like = [&](const Tensor& tensor, bool wanted) {
        return at::zeros(wanted ? tensor.sizes() : at::IntArrayRef({0}), tensor.options());
      };
      of_keys_by_chunk.push_back(like(keys, nodes_wanted));
      of_values_by_chunk.push_back(like(values, nodes_wanted));
      of_vectors_by_chunk.push_back(like(vectors, true));
    }
    const auto wanted = [&](const Tensor& tensor) { return nodes_wanted ? tensor.data_ptr<scalar_t>() : nullptr; };
    for_blocks(call, bounds, true, [&](std::int64_t chunk, Block<scalar_t>& block) {
      const AttentionGradients<scalar_t> gradients{of_messages.const_data_ptr<scalar_t>(),
                                                   of_sums.const_data_ptr<scalar_t>(),
                                                   wanted(of_queries),
                                                   wanted(of_keys_by_chunk[chunk]),
                                                   wanted(of_values_by_chunk[chunk]),
                                                   of_vectors_by_chunk[chunk].template data_ptr<scalar_t>(),
                                                   of_radial.data_ptr<scalar_t>(),
                                                   of_cutoffs.data_ptr<scalar_t>(),
                                                   of_harmonics.data_ptr<scalar_t>()};
      block.back(gradients);
    });
    const auto sum = [](std::vector<Tensor>& chunks) {
      for (std::size_t chunk = 1; chunk < chunks.size(); ++chunk) chunks[0].add_(chunks[chunk]);
      return chunks[0];
    };
    of_keys = sum(of_keys_by_chunk);
    of_values = sum(of_values_by_chunk);
    of_vectors = sum(of_vectors_by_chunk);
  });
  return {of_queries, of_keys, of_values, of_vectors, of_radial, of_cutoffs, of_harmonics};
}

// ---- autograd ------------------------------------------------------------------------------------------------

std::tuple<Tensor, Tensor> forward_autograd(const Tensor& queries, const Tensor& keys, const Tensor& values,
                                            const Tensor& vectors, const Tensor& radial, const Tensor& cutoffs,
                                            const Tensor& harmonics, const Tensor& edge_index, std::int64_t n_heads,
                                            at::IntArrayRef degrees, const Tensor& table, double step,
                                            const Tensor& factors, at::TensorList perceptron, std::int64_t kink) {
  if (!queries.is_cpu())
    return reference(queries, keys, values, vectors, radial, cutoffs, harmonics, edge_index, n_heads, degrees, table,
                     step, factors, perceptron, kink);
  const std::vector<Tensor> inputs = {queries, keys, values, vectors, radial, cutoffs, harmonics};
  const auto forward = [&]() -> Recorded {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("mlip::neighbour_attention", "").typed<decltype(forward_cpu)>();
    const auto [messages, vector_messages] =
        op.call(queries, keys, values, vectors, radial, cutoffs, harmonics, edge_index, n_heads, degrees, table, step,
                factors, perceptron, kink);
    return {{messages, vector_messages}, {queries, keys, values, vectors, radial, cutoffs, harmonics, edge_index}};
  };
  const auto outputs =
      record(inputs, forward,
             [n_heads, degrees = degrees.vec(), table, step, factors, perceptron = perceptron.vec(), kink](
                 const auto& gradients, const auto& kept, const auto& wanted) -> std::vector<Tensor> {
               const LastDerivative only("neighbour_attention");
               static const auto op = c10::Dispatcher::singleton()
                                          .findSchemaOrThrow("mlip::neighbour_attention_backward", "")
                                          .typed<decltype(backward_cpu)>();
               const bool nodes_wanted = wanted[0] || wanted[1] || wanted[2];
               auto [of_queries, of_keys, of_values, of_vectors, of_radial, of_cutoffs, of_harmonics] =
                   op.call(gradients[0], gradients[1], kept[0], kept[1], kept[2], kept[3], kept[4], kept[5], kept[6],
                           kept[7], n_heads, degrees, table, step, factors, perceptron, kink, nodes_wanted);
               if (!nodes_wanted) of_queries = of_keys = of_values = Tensor();
               return {of_queries, of_keys, of_values, of_vectors, of_radial, of_cutoffs, of_harmonics};
             });
  return {outputs[0], outputs[1]};
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "neighbour_attention(Tensor queries, Tensor keys, Tensor values, Tensor vectors, Tensor radial, Tensor cutoffs, "
      "Tensor harmonics, Tensor edge_index, int n_heads, int[] degrees, Tensor table, float step, Tensor factors, "
      "Tensor[] perceptron, int kink=0) -> (Tensor, Tensor)");
  library.def(
      "neighbour_attention_backward(Tensor messages_gradient, Tensor vector_messages_gradient, Tensor queries, "
      "Tensor keys, Tensor values, Tensor vectors, Tensor radial, Tensor cutoffs, Tensor harmonics, Tensor edge_index, "
      "int n_heads, int[] degrees, Tensor table, float step, Tensor factors, Tensor[] perceptron, int kink, "
      "bool nodes_wanted) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "neighbour_attention_reference(Tensor queries, Tensor keys, Tensor values, Tensor vectors, Tensor radial, "
      "Tensor cutoffs, Tensor harmonics, Tensor edge_index, int n_heads, int[] degrees, Tensor table, float step, "
      "Tensor factors, Tensor[] perceptron, int kink=0) -> (Tensor, Tensor)",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("neighbour_attention", mlip::forward_cpu);
  library.impl("neighbour_attention_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("neighbour_attention", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("neighbour_attention", mlip::forward_autograd); }
