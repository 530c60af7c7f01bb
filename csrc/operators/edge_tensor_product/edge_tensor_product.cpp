// The operator `mlip::edge_tensor_product`: an equivariant convolution in one pass over the edges.
//
//   edge_tensor_product(features [n_nodes, n_features], harmonics [n_edges, n_harmonics], radial, edge_index [2,
//   n_edges],
//                       n_owned, paths, coefficients, table, step, table_of_edge, kink)
//     -> outputs, each [n_owned, 2l+1, channels]
//
// It gathers the neighbours' features, multiplies them with the edges' harmonics and radial weights along the paths of
// a 'uvu' tensor product, and sums over the neighbours of each centre; no message of an edge is ever stored. The
// formula and the component-major layout are in edge_tensor_product_kernels.h.
//
//   paths         int[], nine numbers for each path (not a tensor: the outputs' shapes follow from them):
//                 l1, l2, l3, channels, first value of the block in features, in harmonics, in weights,
//                 output tensor, first channel in it
//   coefficients  flat, [2l1+1, 2l2+1, 2l3+1] for each path: Clebsch-Gordan coefficients times path normalisation
//   radial        weights [n_edges, n_weights]; or, when `table` is not empty, distances [n_edges] in Å
//   table         weights over the distance, in intervals of `step` (Å), with a kink at a knot or none (0):
//                 radial_table_layout.h has the formulas. A distance that is not a number is an error; on a GPU, where
//                 to look would make the host wait, its centre gets no number either
//   table_of_edge int64 [n_edges], the table that each edge reads, such as that of its pair of elements;
//                 `table` is then [n_tables, ...]. None where all edges read the same one
//
// Neighbours may be any node, centres are owned. Edges stored centre by centre, as every engine here stores them, are
// read in place; others are put in order first. float32 or float64, all tensors alike.
//
// The CPU has kernels of its own, for the pass back too (gradients of features, harmonics and radial; sums over
// neighbours go to one buffer per thread, so there are no atomics and no race), and so have GPUs. Other devices compute
// the same from torch's own operators, which is also the reference that the tests use:
// `mlip::edge_tensor_product_reference`.
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/native_operator.h"
#include "operators/aligned_memory.h"
#include "operators/autograd.h"
#include "operators/edge_tensor_product/edge_tensor_product_kernels.h"
#include "operators/edge_tensor_product/edge_tensor_product_plan.h"
#include "operators/edges_by_centre.h"
#include "operators/gpu.h"
#include "operators/instruction_sets.h"
#include "operators/new_tensor.h"
#include "operators/radial_table.h"

#ifndef INTRA_OP_PARALLEL
#error "compile with OpenMP, as torch was: without it at::parallel_for is a serial loop"
#endif

namespace mlip {
namespace {

using torch::Tensor;

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, differentiable, and slow.
std::vector<Tensor> reference(const Tensor& features, const Tensor& harmonics, const Tensor& radial,
                              const Tensor& edge_index, c10::SymInt n_owned, at::IntArrayRef paths,
                              const Tensor& coefficients, const Tensor& table, double step,
                              const std::optional<Tensor>& table_of_edge, std::int64_t kink) {
  const EdgeTensorProductPlan plan(paths, features, harmonics, coefficients);
  plan.check(features, harmonics, radial, edge_index, coefficients, table, kink, table_of_edge);
  const Tensor gathered = features.index_select(0, edge_index[1]);
  const Tensor weights =
      table.numel() > 0 ? weights_of_table("edge_tensor_product", radial, table, step, kink, table_of_edge) : radial;
  std::vector<Tensor> outputs;
  for (std::size_t k = 0; k < plan.output_channels.size(); ++k)
    outputs.push_back(
        at::zeros_symint({n_owned, plan.output_components[k], plan.output_channels[k]}, features.options()));
  for (const EdgeTensorProductPlan::Path& path : plan.paths) {
    const Tensor x =
        gathered.narrow(1, path.features, path.n1() * path.channels).unflatten(1, {path.n1(), path.channels});
    const Tensor y = harmonics.narrow(1, path.harmonics, path.n2());
    const Tensor c = coefficients.narrow(0, path.coefficients, path.n1() * path.n2() * path.n3())
                         .reshape({path.n1(), path.n2(), path.n3()});
    const Tensor coupling = torch::einsum("abc,eb->eac", {c, y});
    const Tensor message =
        torch::einsum("eac,eau->ecu", {coupling, x}) * weights.narrow(1, path.weights, path.channels).unsqueeze(1);
    Tensor total = at::zeros_symint({n_owned, path.n3(), path.channels}, features.options());
    total = total.index_add(0, edge_index[0], message);
    const std::int64_t after = plan.output_channels[path.output] - path.output_offset - path.channels;
    outputs[path.output] = outputs[path.output] + torch::constant_pad_nd(total, {path.output_offset, after});
  }
  return outputs;
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Contiguous inputs and the kernels' view of them.
template <typename T>
struct CpuCall {
  Tensor features, harmonics, radial, edge_index, table, table_of_edge;
  EdgeTensorProductPlan plan;
  EdgesByCentre edges;
  AlignedMemory<T> coefficients;
  std::vector<TensorProductPath<T>> paths;
  std::vector<std::int64_t> output_sizes;
  TensorProductProblem<T> problem{};

  CpuCall(const Tensor& features_, const Tensor& harmonics_, const Tensor& radial_, const Tensor& edge_index_,
          std::int64_t n_owned, at::IntArrayRef packed_paths, const Tensor& packed_coefficients, const Tensor& table_,
          double step, const std::optional<Tensor>& table_of_edge_, std::int64_t kink)
      : features(features_.contiguous()),
        harmonics(harmonics_.contiguous()),
        radial(radial_.contiguous()),
        edge_index(edge_index_.contiguous()),
        table(table_.contiguous()),
        table_of_edge(table_of_edge_ ? table_of_edge_->contiguous() : Tensor()),
        plan(packed_paths, features, harmonics, packed_coefficients),
        edges("edge_tensor_product", edge_index, n_owned, features.size(0)) {
    plan.check(features, harmonics, radial, edge_index, packed_coefficients, table, kink, table_of_edge_);
    check_tables();
    if (table.numel() > 0) check_distances("edge_tensor_product", radial.data_ptr<T>(), radial.numel());
    lay_out_coefficients(packed_coefficients.contiguous().data_ptr<T>());
    for (std::size_t k = 0; k < plan.output_channels.size(); ++k)
      output_sizes.push_back(plan.output_components[k] * plan.output_channels[k]);
    problem.paths = paths.data();
    problem.n_paths = static_cast<int>(paths.size());
    problem.first_edge = edges.first.data();
    problem.edge_order = edges.order.empty() ? nullptr : edges.order.data();
    problem.neighbours = edge_index.data_ptr<std::int64_t>() + edge_index.size(1);
    problem.features = features.data_ptr<T>();
    problem.n_features = features.size(1);
    problem.harmonics = harmonics.data_ptr<T>();
    problem.n_harmonics = harmonics.size(1);
    problem.n_weights = plan.n_weights;
    problem.radial = radial.data_ptr<T>();
    problem.table = table.numel() > 0 ? table.data_ptr<T>() : nullptr;
    problem.table_of_edge = table_of_edge.defined() ? table_of_edge.data_ptr<std::int64_t>() : nullptr;
    if (problem.table) problem.layout = layout_of(table, table_of_edge.defined(), step, kink);
    problem.output_sizes = output_sizes.data();
    problem.n_outputs = static_cast<int>(output_sizes.size());
  }

  /// The kernels trust every index.
  void check_tables() const {
    if (!table_of_edge.defined()) return;
    const std::int64_t* const tables = table_of_edge.const_data_ptr<std::int64_t>();
    const std::int64_t n_tables = table.size(0);
    TORCH_CHECK_INDEX(
        std::all_of(tables, tables + table_of_edge.numel(), [&](auto t) { return t >= 0 && t < n_tables; }),
        "edge_tensor_product: an edge has a table outside [0, ", n_tables, ")");
  }

  /// From [n1, n2, n3] to rows [n2] of padded [n1 * n3].
  void lay_out_coefficients(const T* packed) {
    std::size_t size = 0;
    for (const EdgeTensorProductPlan::Path& path : plan.paths)
      size += path.n2() * coupling_stride(path.n1(), path.n3());
    coefficients = AlignedMemory<T>(size);
    T* rows = coefficients.data();
    for (const EdgeTensorProductPlan::Path& path : plan.paths) {
      const std::int64_t stride = coupling_stride(path.n1(), path.n3());
      for (std::int64_t m1 = 0; m1 < path.n1(); ++m1)
        for (std::int64_t m2 = 0; m2 < path.n2(); ++m2)
          for (std::int64_t m3 = 0; m3 < path.n3(); ++m3) rows[m2 * stride + m1 * path.n3() + m3] = *packed++;
      paths.push_back({static_cast<int>(path.n1()), static_cast<int>(path.n2()), static_cast<int>(path.n3()),
                       path.channels, path.features, path.harmonics, path.weights, static_cast<int>(path.output),
                       plan.output_channels[path.output], path.output_offset, rows, is_scalar(path, rows)});
      rows += path.n2() * stride;
    }
  }

  /// Whether one harmonic couples each component with itself alone, and all alike, but for roundings.
  static bool is_scalar(const EdgeTensorProductPlan::Path& path, const T* row) {
    if (path.n2() != 1 || path.n1() != path.n3()) return false;
    const T tolerance = 10 * std::numeric_limits<T>::epsilon() * std::abs(row[0]);
    for (std::int64_t m1 = 0; m1 < path.n1(); ++m1)
      for (std::int64_t m3 = 0; m3 < path.n3(); ++m3)
        if (!(std::abs(row[m1 * path.n3() + m3] - (m1 == m3 ? row[0] : T(0))) <= tolerance)) return false;
    return true;
  }

  static const TensorProductKernels<T>& kernels() { return *instruction_set().kernels<T>().edge_tensor_product; }

  /// body(chunk, first centre, last centre + 1, scratch)
  template <typename Body>
  void for_chunks(const std::vector<std::int64_t>& bounds, Body&& body) const {
    const std::int64_t n_chunks = static_cast<std::int64_t>(bounds.size()) - 1;
    at::parallel_for(0, n_chunks, 1, [&](std::int64_t begin, std::int64_t end) {
      const AlignedMemory<T> scratch(scratch_size(problem));
      for (std::int64_t chunk = begin; chunk < end; ++chunk)
        body(chunk, bounds[chunk], bounds[chunk + 1], scratch.data());
    });
  }
};

std::vector<Tensor> forward_cpu(const Tensor& features, const Tensor& harmonics, const Tensor& radial,
                                const Tensor& edge_index, std::int64_t n_owned, at::IntArrayRef paths,
                                const Tensor& coefficients, const Tensor& table, double step,
                                const std::optional<Tensor>& table_of_edge, std::int64_t kink) {
  std::vector<Tensor> outputs;
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "edge_tensor_product", [&] {
    const CpuCall<scalar_t> call(features, harmonics, radial, edge_index, n_owned, paths, coefficients, table, step,
                                 table_of_edge, kink);
    std::vector<scalar_t*> pointers;
    for (std::size_t k = 0; k < call.output_sizes.size(); ++k) {
      outputs.push_back(new_tensor({n_owned, call.plan.output_components[k], call.plan.output_channels[k]}, features));
      pointers.push_back(outputs.back().data_ptr<scalar_t>());
    }
    call.for_chunks(call.edges.chunks(), [&](std::int64_t, std::int64_t begin, std::int64_t end, scalar_t* scratch) {
      call.kernels().forward(call.problem, pointers.data(), begin, end, scratch);
    });
  });
  return outputs;
}

/// -> gradients of features (empty when not wanted), harmonics, radial
std::tuple<Tensor, Tensor, Tensor> backward_cpu(at::TensorList gradients, const Tensor& features,
                                                const Tensor& harmonics, const Tensor& radial, const Tensor& edge_index,
                                                at::IntArrayRef paths, const Tensor& coefficients, const Tensor& table,
                                                double step, bool features_wanted,
                                                const std::optional<Tensor>& table_of_edge, std::int64_t kink) {
  const std::int64_t n_owned = gradients[0].size(0);
  Tensor features_gradient =
      torch::zeros(features_wanted ? features.sizes() : c10::IntArrayRef({0}), features.options());
  Tensor harmonics_gradient = new_tensor(harmonics.sizes(), harmonics);
  Tensor radial_gradient = new_tensor(radial.sizes(), radial);
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "edge_tensor_product_backward", [&] {
    const CpuCall<scalar_t> call(features, harmonics, radial, edge_index, n_owned, paths, coefficients, table, step,
                                 table_of_edge, kink);
    std::vector<Tensor> dense;
    std::vector<const scalar_t*> pointers;
    call.plan.check_gradients(gradients, n_owned, features.scalar_type());
    for (std::size_t k = 0; k < gradients.size(); ++k) {
      dense.push_back(gradients[k].contiguous());
      pointers.push_back(dense.back().data_ptr<scalar_t>());
    }
    const std::vector<std::int64_t> bounds = call.edges.chunks();
    const std::int64_t n_chunks = static_cast<std::int64_t>(bounds.size()) - 1;
    std::vector<Tensor> buffers{features_gradient};
    while (features_wanted && static_cast<std::int64_t>(buffers.size()) < n_chunks)
      buffers.push_back(torch::zeros_like(features_gradient));
    std::vector<scalar_t*> feature_pointers(n_chunks, nullptr);
    for (std::int64_t chunk = 0; features_wanted && chunk < n_chunks; ++chunk)
      feature_pointers[chunk] = buffers[chunk].data_ptr<scalar_t>();
    call.for_chunks(bounds, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end, scalar_t* scratch) {
      const TensorProductGradients<scalar_t> targets{pointers.data(), feature_pointers[chunk],
                                                     harmonics_gradient.data_ptr<scalar_t>(),
                                                     radial_gradient.data_ptr<scalar_t>()};
      call.kernels().backward(call.problem, targets, begin, end, scratch);
    });
    for (std::size_t k = 1; k < buffers.size(); ++k) features_gradient.add_(buffers[k]);
  });
  return {features_gradient, harmonics_gradient, radial_gradient};
}

// ---- autograd ------------------------------------------------------------------------------------------------

// The count is a SymInt, as in ghost_gather.cpp.
std::vector<Tensor> forward_autograd(const Tensor& features, const Tensor& harmonics, const Tensor& radial,
                                     const Tensor& edge_index, c10::SymInt n_owned, at::IntArrayRef paths,
                                     const Tensor& coefficients, const Tensor& table, double step,
                                     const std::optional<Tensor>& table_of_edge, std::int64_t kink) {
  if (!has_own_kernels(features.device()))
    return reference(features, harmonics, radial, edge_index, std::move(n_owned), paths, coefficients, table, step,
                     table_of_edge, kink);
  const auto forward = [&]() -> Recorded {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("mlip::edge_tensor_product", "")
                               .typed<decltype(forward_autograd)>();
    return {op.call(features, harmonics, radial, edge_index, n_owned, paths, coefficients, table, step, table_of_edge,
                    kink),
            {features, harmonics, radial, edge_index}};
  };
  return record({features, harmonics, radial}, forward,
                [paths = paths.vec(), coefficients, table, step, table_of_edge, kink](
                    const auto& gradients, const auto& kept, const auto& wanted) -> std::vector<Tensor> {
                  const LastDerivative only("edge_tensor_product");
                  static const auto op = c10::Dispatcher::singleton()
                                             .findSchemaOrThrow("mlip::edge_tensor_product_backward", "")
                                             .typed<decltype(backward_cpu)>();
                  const auto [of_features, of_harmonics, of_radial] =
                      op.call(gradients, kept[0], kept[1], kept[2], kept[3], paths, coefficients, table, step,
                              wanted[0], table_of_edge, kink);
                  return {wanted[0] ? of_features : Tensor(), of_harmonics, of_radial};
                });
}

// ---- without autograd ----------------------------------------------------------------------------------------

class NativeEdgeTensorProduct : public NativeOperator {
 public:
  NativeEdgeTensorProduct(std::vector<std::int64_t> paths, Tensor coefficients, Tensor table, double step,
                          std::int64_t kink)
      : paths_(std::move(paths)),
        coefficients_(std::move(coefficients)),
        table_(std::move(table)),
        step_(step),
        kink_(kink) {
    for (std::size_t k = 7; k < paths_.size(); k += 9)
      n_outputs_ = std::max(n_outputs_, static_cast<std::size_t>(paths_[k]) + 1);
  }

  Tensors forward(Tensors inputs, std::int64_t n_owned, Kept* kept) const override {
    const auto pass = inputs[0].is_cpu() ? forward_cpu : gpu::edge_tensor_product;
    Tensors outputs = pass(inputs[0], inputs[1], inputs[2], inputs[3], n_owned, paths_, coefficients_, table_, step_,
                           table_of_edge(inputs), kink_);
    if (kept != nullptr) kept->tensors = std::move(inputs);
    return outputs;
  }

  void backward(const Tensors& gradients, const Kept& kept, const std::vector<bool>& wanted,
                Tensors& sums) const override {
    const Tensors& inputs = kept.tensors;
    const auto pass = inputs[0].is_cpu() ? backward_cpu : gpu::edge_tensor_product_backward;
    auto [features, harmonics, radial] = pass(gradients, inputs[0], inputs[1], inputs[2], inputs[3], paths_,
                                              coefficients_, table_, step_, wanted[0], table_of_edge(inputs), kink_);
    if (wanted[0]) add_gradient(sums[0], std::move(features));
    if (wanted[1]) add_gradient(sums[1], std::move(harmonics));
    if (wanted[2]) add_gradient(sums[2], std::move(radial));
  }

  std::size_t n_outputs() const override { return n_outputs_; }

 private:
  /// An argument that may be None: then it is none of the inputs.
  static std::optional<Tensor> table_of_edge(const Tensors& inputs) {
    return inputs.size() > 4 ? std::optional(inputs[4]) : std::nullopt;
  }

  std::vector<std::int64_t> paths_;
  Tensor coefficients_, table_;
  double step_;
  std::int64_t kink_;
  std::size_t n_outputs_ = 0;
};

const RegisterNative native("mlip::edge_tensor_product",
                            [](const std::vector<c10::IValue>& arguments,
                               at::Device device) -> std::unique_ptr<NativeOperator> {
                              if (!has_own_kernels(device)) return nullptr;
                              for (std::size_t k = 0; k < arguments.size(); ++k)
                                if (arguments[k].isNone() != (k < 5 || k == 9)) return nullptr;
                              return std::make_unique<NativeEdgeTensorProduct>(
                                  arguments[5].toIntVector(), arguments[6].toTensor(), arguments[7].toTensor(),
                                  arguments[8].toDouble(), arguments[10].toInt());
                            });

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "edge_tensor_product(Tensor features, Tensor harmonics, Tensor radial, Tensor edge_index, SymInt n_owned, "
      "int[] paths, Tensor coefficients, Tensor table, float step, Tensor? table_of_edge=None, int kink=0) -> "
      "Tensor[]");
  library.def(
      "edge_tensor_product_backward(Tensor[] gradients, Tensor features, Tensor harmonics, Tensor radial, "
      "Tensor edge_index, int[] paths, Tensor coefficients, Tensor table, float step, bool features_wanted, "
      "Tensor? table_of_edge=None, int kink=0) -> (Tensor, Tensor, Tensor)");
  library.def(
      "edge_tensor_product_reference(Tensor features, Tensor harmonics, Tensor radial, Tensor edge_index, SymInt "
      "n_owned, "
      "int[] paths, Tensor coefficients, Tensor table, float step, Tensor? table_of_edge=None, int kink=0) -> Tensor[]",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("edge_tensor_product", mlip::forward_cpu);
  library.impl("edge_tensor_product_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CUDA, library) {
  library.impl("edge_tensor_product", mlip::gpu::edge_tensor_product);
  library.impl("edge_tensor_product_backward", mlip::gpu::edge_tensor_product_backward);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("edge_tensor_product", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("edge_tensor_product", mlip::forward_autograd); }
