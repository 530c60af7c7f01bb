// The host's side of device_edges.cu.
#include <ATen/ATen.h>

#include <limits>

#include "gpu/places_by_value.h"
#include "gpu/runtime.h"
#include "gpu/texts.h"
#include "model/device_edges.h"

namespace mlip {
namespace {

constexpr int threads_per_block = 128, warps_per_block = threads_per_block / 32;

/// As in device_edges.cu.
struct Arguments {
  std::int64_t n_centres, n_nodes;
  const void *centres, *first_candidate, *neighbours, *images, *shifts, *node_of;
  const void *centres_of_node, *first_centre, *incoming, *first_incoming;
  const void* positions;
  double length, cutoff_squared;
  void *edge_of_candidate, *n_edges;
  const void* first_edge;
  void *index, *vectors;
  std::int64_t total;
  const void* gradients;
  void *forces, *outgoing_virials, *incoming_virials;
};

const void* address(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }
void* writable(const at::Tensor& tensor) { return tensor.defined() ? tensor.mutable_data_ptr() : nullptr; }

class KernelEdges : public DeviceEdges {
 public:
  explicit KernelEdges(at::Device device) : device_(device) {
    for (const char* name : {"filter_candidates", "write_edges"}) kernel(at::kDouble, name);
    std::vector<int> components;
    for (std::size_t k = 0; k < 9; ++k) components.push_back(3 * virial_rows[k] + virial_columns[k]);
    components_ = upload(components, device);
    transposed_ = at::arange(9, components_.options()).reshape({3, 3}).t().reshape({9}).index_select(0, components_);
  }

  void set_candidates(const CandidateEdges& candidates, std::int64_t n_nodes) override {
    TORCH_CHECK(candidates.n_candidates() < std::numeric_limits<int>::max(), candidates.n_candidates(),
                " candidates, expected fewer than 2^31 on one GPU");
    n_nodes_ = n_nodes;
    n_centres_ = static_cast<std::int64_t>(candidates.centres.size());
    centres_ = upload(candidates.centres, device_);
    first_candidate_ = upload(candidates.first, device_);
    neighbours_ = upload(candidates.neighbours, device_);
    node_of_ = upload(candidates.node_of, device_);
    images_ = candidates.images.empty() ? at::Tensor() : upload(candidates.images, device_);
    set_shifts(candidates);
    centres_of_node_ = gpu::PlacesByValue(node_of_.index_select(0, centres_), n_nodes);
    incoming_ = gpu::PlacesByValue(node_of_.index_select(0, neighbours_), n_nodes);
    edge_of_candidate_ = at::empty_like(neighbours_);
  }

  void set_shifts(const CandidateEdges& candidates) override { shifts_ = upload_shifts(candidates, device_); }

  EdgesOfStep find(const at::Tensor& positions, double length_in_angstrom, double cutoff) override {
    const at::TensorOptions integers = first_candidate_.options();
    const at::Tensor n_edges = at::zeros({n_centres_ + 1}, integers);
    Arguments a = of_candidates();
    a.positions = positions.const_data_ptr();
    a.length = length_in_angstrom;
    a.cutoff_squared = cutoff * cutoff;
    a.n_edges = n_edges.mutable_data_ptr();
    launch(at::kDouble, "filter_candidates", n_centres_, a);
    first_edge_ = n_edges.cumsum(0);
    a.first_edge = first_edge_.const_data_ptr();
    a.total = first_edge_[n_centres_].item<std::int64_t>();
    EdgesOfStep edges{at::empty({2, a.total}, integers), at::empty({a.total, 3}, integers.dtype(at::kDouble))};
    a.index = edges.index.mutable_data_ptr();
    a.vectors = edges.vectors.mutable_data_ptr();
    launch(at::kDouble, "write_edges", n_centres_, a);
    return edges;
  }

  SumsOverEdges sums(const EdgesOfStep& edges, const at::Tensor& gradients, const StepRequest& wanted) override {
    const at::Tensor g = gradients.contiguous();
    const auto of_nodes = [&](bool is_wanted, std::int64_t width) {
      return is_wanted ? at::empty({n_nodes_, width}, edges.vectors.options()) : at::Tensor();
    };
    SumsOverEdges found;
    found.forces = of_nodes(wanted.forces, 3);
    const at::Tensor outgoing = of_nodes(wanted.virial || wanted.atom_virials, 9),
                     incoming = of_nodes(wanted.atom_virials || wanted.centroid_virials, 9);
    Arguments a = of_candidates();
    a.first_edge = first_edge_.const_data_ptr();
    a.vectors = edges.vectors.mutable_data_ptr();
    a.total = edges.vectors.size(0);
    a.gradients = g.const_data_ptr();
    a.forces = writable(found.forces);
    a.outgoing_virials = writable(outgoing);
    a.incoming_virials = writable(incoming);
    launch(g.scalar_type(), "sums_of_nodes", n_nodes_, a);
    if (wanted.virial) found.virial = outgoing.sum(0).reshape({3, 3});
    if (wanted.atom_virials) {
      const at::Tensor both = outgoing + incoming;
      found.atom_virials = both.index_select(1, components_.narrow(0, 0, 6))
                               .add_(both.index_select(1, transposed_.narrow(0, 0, 6)))
                               .mul_(0.25);
    }
    if (wanted.centroid_virials) found.centroid_virials = incoming.index_select(1, components_);
    return found;
  }

  double bytes() const override {
    double total = 0.0;
    for (const at::Tensor& tensor :
         {centres_, first_candidate_, neighbours_, images_, shifts_, node_of_, centres_of_node_.order,
          centres_of_node_.first, incoming_.order, incoming_.first, edge_of_candidate_, first_edge_})
      if (tensor.defined()) total += static_cast<double>(tensor.nbytes());
    return total;
  }

 private:
  Arguments of_candidates() const {
    Arguments a{};
    a.n_centres = n_centres_;
    a.n_nodes = n_nodes_;
    a.centres = address(centres_);
    a.first_candidate = address(first_candidate_);
    a.neighbours = address(neighbours_);
    a.images = address(images_);
    a.shifts = address(shifts_);
    a.node_of = address(node_of_);
    a.centres_of_node = address(centres_of_node_.order);
    a.first_centre = address(centres_of_node_.first);
    a.incoming = address(incoming_.order);
    a.first_incoming = address(incoming_.first);
    a.edge_of_candidate = writable(edge_of_candidate_);
    return a;
  }

  std::shared_ptr<const gpu::Kernel> kernel(at::ScalarType type, const char* name) const {
    return gpu::runtime().kernel(kernel_edges_source(type), name, device_);
  }

  /// A warp for each.
  void launch(at::ScalarType type, const char* name, std::int64_t n, const Arguments& arguments) const {
    kernel(type, name)->launch((n + warps_per_block - 1) / warps_per_block, threads_per_block, 0, &arguments);
  }

  at::Device device_;
  at::Tensor components_, transposed_;  // int32 [9] of graph.h's components, and of their transposes, in a 3x3 tensor
  std::int64_t n_centres_ = 0, n_nodes_ = 0;
  // As in device_edges.cu:
  at::Tensor centres_, first_candidate_, neighbours_, images_, shifts_, node_of_;
  gpu::PlacesByValue centres_of_node_, incoming_;
  at::Tensor edge_of_candidate_, first_edge_;
};

}  // namespace

std::unique_ptr<DeviceEdges> make_kernel_edges(at::Device device) { return std::make_unique<KernelEdges>(device); }

std::string kernel_edges_source(at::ScalarType type) {
  return gpu::real_type(type) + gpu::warp_text + gpu::device_edges_text;
}

}  // namespace mlip
