// The host's side of edge_tensor_product.cu: writes the description of a convolution that the kernels are compiled
// with, and launches them.
#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>

#include "gpu/edges_by_node.h"
#include "gpu/runtime.h"
#include "operators/edge_tensor_product/edge_tensor_product_arguments.h"
#include "operators/edge_tensor_product/edge_tensor_product_plan.h"
#include "operators/gpu.h"

namespace mlip::gpu {
namespace {

using at::Tensor;

constexpr int warp_size = 32, warps_per_block = 4;

/// Where radial weights come from: see radial_table_layout.h.
enum class TableKind { none, polynomials, splines };

/// The convolution's constants: everything that its code depends on.
struct Description {
  EdgeTensorProductPlan plan;
  std::int64_t n_features, n_harmonics;
  TableKind table;
  at::ScalarType type;
  const double* coefficients;  ///< [n1, n2, n3] of each path, one after the other
  double step;                 ///< Å, of the table

  std::string number(double value) const { return real_number(value, type); }
};

/// A block of node features and the numbers of the paths that read it.
struct FeatureBlock {
  std::int64_t features, n1, channels;
  std::vector<std::size_t> paths;
  std::int64_t n_slots() const { return (channels + warp_size - 1) / warp_size; }
};

std::vector<FeatureBlock> feature_blocks(const EdgeTensorProductPlan& plan) {
  std::vector<FeatureBlock> blocks;
  for (std::size_t p = 0; p < plan.paths.size(); ++p) {
    const auto& path = plan.paths[p];
    for (std::size_t q = 0; q < p; ++q)
      TORCH_CHECK(plan.paths[q].output != path.output ||
                      plan.paths[q].output_offset + plan.paths[q].channels <= path.output_offset ||
                      path.output_offset + path.channels <= plan.paths[q].output_offset,
                  "edge_tensor_product: paths ", q, " and ", p, " add to the same channels, which GPUs cannot do");
    const auto same = [&](const FeatureBlock& block) {
      return block.features == path.features && block.n1 == path.n1() && block.channels == path.channels;
    };
    auto block = std::find_if(blocks.begin(), blocks.end(), same);
    if (block == blocks.end()) block = blocks.insert(blocks.end(), {path.features, path.n1(), path.channels, {}});
    block->paths.push_back(p);
  }
  return blocks;
}

/// A function of a path: one line `target[...] += C * a[...] * b[...]` for each coefficient that is not zero.
template <typename Line>
std::string sums(const Description& description, const EdgeTensorProductPlan::Path& path, const char* head,
                 Line&& line) {
  std::string text = std::string("  static __device__ __forceinline__ void ") + head + " {\n";
  const double* c = description.coefficients + path.coefficients;
  for (std::int64_t m1 = 0; m1 < path.n1(); ++m1)
    for (std::int64_t m2 = 0; m2 < path.n2(); ++m2)
      for (std::int64_t m3 = 0; m3 < path.n3(); ++m3, ++c) {
        if (*c == 0.0) continue;
        text += "    " + line(m1, m2, m3, description.number(*c)) + ";\n";
      }
  return text + "  }\n";
}

std::string element(const char* array, std::int64_t index) {
  return std::string(array) + "[" + std::to_string(index) + "]";
}

/// The text that edge_tensor_product.cu is compiled behind.
std::string describe(const Description& description, const std::vector<FeatureBlock>& blocks) {
  const EdgeTensorProductPlan& plan = description.plan;
  std::string text = real_type(description.type);
  text += "namespace {\n";
  const auto flag = [&](const char* name, bool value) {
    text += std::string("constexpr bool ") + name + " = " + (value ? "true" : "false") + ";\n";
  };
  flag("tabulated", description.table != TableKind::none);
  flag("splines", description.table == TableKind::splines);
  text += "constexpr int n_features = " + std::to_string(description.n_features) +
          ", n_harmonics = " + std::to_string(description.n_harmonics) +
          ", n_weights = " + std::to_string(plan.n_weights) + ", n_blocks = " + std::to_string(blocks.size()) + ";\n";
  const double inverse_step = description.table != TableKind::none ? 1.0 / description.step : 0.0;
  const double rounded = description.type == at::kFloat ? static_cast<float>(inverse_step) : inverse_step;
  text += "constexpr real inverse_step = " + description.number(rounded) +
          ", inverse_step_rest = " + description.number(inverse_step - rounded) + ";\n";
  text += "template <int B> struct Block;\ntemplate <int P> struct Path;\n";
  std::size_t n_described = 0;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    std::int64_t n_sums = 0;
    const std::size_t first_path = n_described;
    for (const std::size_t p : blocks[b].paths) {
      const auto& path = plan.paths[p];
      const std::int64_t output_channels = plan.output_channels[path.output];
      text += "template <> struct Path<" + std::to_string(n_described++) + "> {\n" + constant("n1", path.n1()) +
              constant("n2", path.n2()) + constant("n3", path.n3()) + constant("harmonics", path.harmonics) +
              constant("weights", path.weights) + constant("first_sum", n_sums) + constant("output", path.output) +
              constant("output_size", path.n3() * output_channels) + constant("output_channels", output_channels) +
              constant("output_offset", path.output_offset);
      text += sums(description, path, "to_output(const real* y, const real* x, real* out)",
                   [](auto m1, auto m2, auto m3, const std::string& c) {
                     return element("out", m3) + " += " + c + " * " + element("y", m2) + " * " + element("x", m1);
                   });
      text += sums(description, path, "to_features(const real* y, const real* g, real* gx)",
                   [](auto m1, auto m2, auto m3, const std::string& c) {
                     return element("gx", m1) + " += " + c + " * " + element("y", m2) + " * " + element("g", m3);
                   });
      text += sums(description, path, "to_harmonics(const real* x, const real* g, real* gy)",
                   [](auto m1, auto m2, auto m3, const std::string& c) {
                     return element("gy", m2) + " += " + c + " * (" + element("x", m1) + " * " + element("g", m3) + ")";
                   });
      text += "};\n";
      n_sums += path.n3();
    }
    text += "template <> struct Block<" + std::to_string(b) + "> {\n" + constant("features", blocks[b].features) +
            constant("n1", blocks[b].n1) + constant("channels", blocks[b].channels) +
            constant("n_slots", blocks[b].n_slots()) + constant("n_sums", n_sums) +
            constant("first_path", static_cast<std::int64_t>(first_path)) +
            constant("last_path", static_cast<std::int64_t>(n_described)) + "};\n";
  }
  return text + "}  // namespace\n";
}

/// The text that it is compiled before: kernels of each block.
std::string kernels(std::size_t n_blocks) {
  std::string text;
  for (std::size_t b = 0; b < n_blocks; ++b) {
    const std::string number = std::to_string(b);
    const auto kernel = [&](const std::string& name, const std::string& body) {
      text += "extern \"C\" __global__ void " + name + "_" + number + "(const EdgeTensorProductArguments a) { " + body +
              "<" + number + ">(a); }\n";
    };
    kernel("convolution", "convolve");
    kernel("convolution_to_features", "gather_gradients");
  }
  return text;
}

/// Which columns of a matrix are written.
class Coverage {
 public:
  explicit Coverage(std::int64_t n_columns) : written_(static_cast<std::size_t>(n_columns)) {}
  void add(std::int64_t first, std::int64_t n) { std::fill_n(written_.begin() + first, n, true); }
  bool whole() const { return std::count(written_.begin(), written_.end(), false) == 0; }

 private:
  std::vector<bool> written_;
};

/// The kernels of one convolution.
struct Convolution {
  struct Block {
    std::int64_t n_slots;
    std::shared_ptr<const Kernel> forward, to_features;
  };
  std::vector<Block> blocks;
  std::shared_ptr<const Kernel> to_edges;
  bool all_features, all_weights;  ///< each is read by a path
  std::vector<bool> all_channels;  ///< of each output: each has a path that adds to it
};

/// Kernels by what they were compiled from. The coefficients lie on the device: reading them at every call would make
/// the host wait, so they are known by their memory, and read anew once that memory was given back.
class Convolutions {
 public:
  Convolution find(const EdgeTensorProductPlan& plan, at::IntArrayRef paths, const Tensor& features,
                   const Tensor& harmonics, const Tensor& coefficients, TableKind table, double step) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::erase_if(known_, [](const Known& known) { return known.coefficients.expired(); });
    for (const Known& known : known_)
      if (known.coefficients._unsafe_get_target() == coefficients.storage().unsafeGetStorageImpl() &&
          known.offset == coefficients.storage_offset() && known.paths == paths && known.table == table &&
          known.step == step && known.n_features == features.size(1) && known.n_harmonics == harmonics.size(1))
        return known.convolution;
    const Tensor values = coefficients.to(at::kCPU, at::kDouble).contiguous();
    const std::vector<FeatureBlock> blocks = feature_blocks(plan);
    const std::string source = edge_tensor_product_arguments_text +
                               describe({plan, features.size(1), harmonics.size(1), table, features.scalar_type(),
                                         values.const_data_ptr<double>(), step},
                                        blocks) +
                               warp_text + edge_tensor_product_text + kernels(blocks.size());
    const auto kernel = [&](const std::string& name) { return runtime().kernel(source, name, features.device()); };
    Convolution made;
    Coverage of_features(features.size(1)), of_weights(plan.n_weights);
    std::vector<Coverage> of_outputs(plan.output_channels.begin(), plan.output_channels.end());
    for (const FeatureBlock& block : blocks) {
      const std::string number = std::to_string(made.blocks.size());
      made.blocks.push_back(
          {block.n_slots(), kernel("convolution_" + number), kernel("convolution_to_features_" + number)});
      of_features.add(block.features, block.n1 * block.channels);
    }
    for (const auto& path : plan.paths) {
      of_weights.add(path.weights, path.channels);
      of_outputs[static_cast<std::size_t>(path.output)].add(path.output_offset, path.channels);
    }
    made.to_edges = kernel("convolution_to_edges");
    made.all_features = of_features.whole();
    made.all_weights = of_weights.whole();
    for (const Coverage& output : of_outputs) made.all_channels.push_back(output.whole());
    known_.push_back({coefficients.storage().getWeakStorageImpl(), coefficients.storage_offset(), paths.vec(), table,
                      step, features.size(1), harmonics.size(1), made});
    return made;
  }

 private:
  struct Known {
    c10::weak_intrusive_ptr<c10::StorageImpl> coefficients;
    std::int64_t offset;
    std::vector<std::int64_t> paths;
    TableKind table;
    double step;
    std::int64_t n_features, n_harmonics;
    Convolution convolution;
  };
  std::mutex mutex_;
  std::vector<Known> known_;
};

/// Contiguous inputs, checked, and what all three kernels are passed.
struct Call {
  Tensor features, harmonics, radial, table, table_of_edge;
  EdgeTensorProductPlan plan;
  std::shared_ptr<EdgesByNode> edges;
  Convolution convolution;
  EdgeTensorProductArguments arguments{};

  Call(const Tensor& features_, const Tensor& harmonics_, const Tensor& radial_, const Tensor& edge_index,
       std::int64_t n_owned, at::IntArrayRef paths, const Tensor& coefficients, const Tensor& table_, double step,
       const std::optional<Tensor>& table_of_edge_, std::int64_t kink)
      : features(features_.contiguous()),
        harmonics(harmonics_.contiguous()),
        radial(radial_.contiguous()),
        table(table_.contiguous()),
        table_of_edge(table_of_edge_ ? table_of_edge_->contiguous() : Tensor()),
        plan(paths, features, harmonics, coefficients) {
    plan.check(features, harmonics, radial, edge_index, coefficients, table, kink, table_of_edge_);
    TORCH_CHECK(plan.output_channels.size() <= most_outputs, "edge_tensor_product: ", plan.output_channels.size(),
                " outputs, at most ", most_outputs, " on a GPU");
    edges = EdgesByNode::of(edge_index, n_owned, features.size(0));
    TableKind kind = TableKind::none;
    if (table.numel() > 0) {
      const RadialTableLayout layout = layout_of(table, table_of_edge.defined(), step, kink);
      kind = layout.is_spline ? TableKind::splines : TableKind::polynomials;
      arguments.n_intervals = layout.n_intervals;
      arguments.n_rows = layout.n_rows;
      arguments.kink = layout.kink;
    }
    static Convolutions convolutions;
    convolution = convolutions.find(plan, paths, features, harmonics, coefficients, kind, step);

    const std::int64_t n_edges = edge_index.size(1);
    arguments.n_owned = n_owned;
    arguments.n_nodes = features.size(0);
    arguments.n_edges = n_edges;
    arguments.centres = indices(edges->edge_index);
    arguments.neighbours = arguments.centres + n_edges;
    arguments.first_of_centre = indices(edges->first_of_centre);
    arguments.centre_order = edges->centre_order.defined() ? indices(edges->centre_order) : nullptr;
    arguments.features = features.const_data_ptr();
    arguments.harmonics = harmonics.const_data_ptr();
    arguments.radial = radial.const_data_ptr();
    arguments.table = table.const_data_ptr();
    arguments.table_of_edge = table_of_edge.defined() ? indices(table_of_edge) : nullptr;
  }

  static const long long* indices(const Tensor& tensor) {
    static_assert(sizeof(long long) == sizeof(std::int64_t));
    return reinterpret_cast<const long long*>(tensor.const_data_ptr<std::int64_t>());
  }

  void launch(const Kernel& kernel, std::int64_t n_warps) const {
    kernel.launch((n_warps + warps_per_block - 1) / warps_per_block, warps_per_block * warp_size, 0, &arguments);
  }
};

/// A tensor for kernels to write; zeros where they leave something out: channels to which no path adds, features that
/// no path reads, weights that no path has.
Tensor room(at::IntArrayRef sizes, const Tensor& like, bool all_written) {
  return all_written ? at::empty(sizes, like.options()) : at::zeros(sizes, like.options());
}

}  // namespace

std::vector<Tensor> edge_tensor_product(const Tensor& features, const Tensor& harmonics, const Tensor& radial,
                                        const Tensor& edge_index, std::int64_t n_owned, at::IntArrayRef paths,
                                        const Tensor& coefficients, const Tensor& table, double step,
                                        const std::optional<Tensor>& table_of_edge, std::int64_t kink) {
  const c10::DeviceGuard guard(features.device());
  Call call(features, harmonics, radial, edge_index, n_owned, paths, coefficients, table, step, table_of_edge, kink);
  std::vector<Tensor> outputs;
  for (std::size_t k = 0; k < call.plan.output_channels.size(); ++k) {
    outputs.push_back(room({n_owned, call.plan.output_components[k], call.plan.output_channels[k]}, features,
                           call.convolution.all_channels[k]));
    call.arguments.outputs[k] = outputs.back().mutable_data_ptr();
  }
  for (const auto& block : call.convolution.blocks) call.launch(*block.forward, n_owned * block.n_slots);
  return outputs;
}

std::tuple<Tensor, Tensor, Tensor> edge_tensor_product_backward(
    at::TensorList gradients, const Tensor& features, const Tensor& harmonics, const Tensor& radial,
    const Tensor& edge_index, at::IntArrayRef paths, const Tensor& coefficients, const Tensor& table, double step,
    bool features_wanted, const std::optional<Tensor>& table_of_edge, std::int64_t kink) {
  const c10::DeviceGuard guard(features.device());
  const std::int64_t n_owned = gradients[0].size(0);
  Call call(features, harmonics, radial, edge_index, n_owned, paths, coefficients, table, step, table_of_edge, kink);
  call.plan.check_gradients(gradients, n_owned, features.scalar_type());
  std::vector<Tensor> dense;
  for (std::size_t k = 0; k < gradients.size(); ++k) {
    dense.push_back(gradients[k].contiguous());
    call.arguments.output_gradients[k] = dense.back().const_data_ptr();
  }
  const Convolution& convolution = call.convolution;
  Tensor features_gradient =
      room(features_wanted ? features.sizes() : c10::IntArrayRef({0}), features, convolution.all_features);
  Tensor harmonics_gradient = at::empty(harmonics.sizes(), harmonics.options());
  Tensor radial_gradient = room(radial.sizes(), radial, convolution.all_weights || table.numel() > 0);
  call.arguments.features_gradient = features_gradient.mutable_data_ptr();
  call.arguments.harmonics_gradient = harmonics_gradient.mutable_data_ptr();
  call.arguments.radial_gradient = radial_gradient.mutable_data_ptr();
  call.launch(*call.convolution.to_edges, call.arguments.n_edges);
  if (features_wanted) {
    call.arguments.first_of_neighbour = Call::indices(call.edges->first_of_neighbour());
    call.arguments.neighbour_order = Call::indices(call.edges->neighbour_order());
    for (const auto& block : call.convolution.blocks)
      call.launch(*block.to_features, call.arguments.n_nodes * block.n_slots);
  }
  return {features_gradient, harmonics_gradient, radial_gradient};
}

}  // namespace mlip::gpu
