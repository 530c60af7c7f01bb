#include "gpu/edges_by_node.h"

#include <ATen/ATen.h>

#include <map>
#include <optional>

namespace mlip::gpu {
namespace {

/// first[k] ... first[k + 1] are the places of value k among sorted values.
at::Tensor first_places(const at::Tensor& sorted, std::int64_t n_values) {
  return at::searchsorted(sorted, at::arange(n_values + 1, sorted.options()));
}

/// Counts changes of a tensor in place.
std::int64_t version_of(const at::Tensor& tensor) {
  return tensor.is_inference() ? 0 : static_cast<std::int64_t>(tensor._version());
}

/// -> values in order, and their places before (equal values keep theirs)
std::tuple<at::Tensor, at::Tensor> sorted(const at::Tensor& indices) {
  // Half the digits, half the work; nodes are fewer than 2^31.
  return indices.to(at::kInt).sort(/*stable=*/true, 0, /*descending=*/false);
}

/// Edges and numbers of nodes, to be known again. Keeps the tensor, so that its memory holds no other edges meanwhile.
struct Graph {
  at::Tensor edge_index;
  std::int64_t version, n_owned, n_nodes;

  bool operator==(const Graph& other) const {
    return n_owned == other.n_owned && n_nodes == other.n_nodes && version == other.version &&
           edge_index.sizes() == other.edge_index.sizes() && edge_index.strides() == other.edge_index.strides() &&
           edge_index.const_data_ptr() == other.edge_index.const_data_ptr();
  }
};

struct Remembered {
  struct OfDevice {
    std::optional<Graph> sound, last;
    std::shared_ptr<EdgesByNode> order;  // of the last
  };
  std::mutex mutex;
  std::map<int, OfDevice> devices;

  /// Never destroyed: at the end of the process the memory of a GPU may be gone before it.
  static Remembered& instance() {
    static auto* const only = new Remembered;
    return *only;
  }
};

}  // namespace

EdgesByNode::EdgesByNode(const at::Tensor& given, std::int64_t n_owned, std::int64_t n_nodes, bool sound)
    : edge_index(given.contiguous()), n_nodes_(n_nodes) {
  const at::Tensor centres = edge_index.select(0, 0), neighbours = edge_index.select(0, 1);
  const std::int64_t n_edges = edge_index.size(1);
  if (n_edges == 0) {
    first_of_centre = at::zeros({n_owned + 1}, edge_index.options());
    return;
  }
  if (sound) {
    first_of_centre = first_places(centres, n_owned);
    return;
  }
  // The kernels trust every index. One look from the host at all that it must know.
  const at::Tensor descends = (centres.narrow(0, 1, n_edges - 1) < centres.narrow(0, 0, n_edges - 1)).any();
  const at::Tensor facts =
      at::stack({centres.min(), centres.max(), neighbours.min(), neighbours.max(), descends.to(at::kLong)})
          .to(at::kCPU);
  const std::int64_t* const fact = facts.const_data_ptr<std::int64_t>();
  TORCH_CHECK_INDEX(fact[0] >= 0 && fact[1] < n_owned && fact[2] >= 0 && fact[3] < n_nodes,
                    "an edge has a centre outside [0, ", n_owned, ") or a neighbour outside [0, ", n_nodes, ")");
  if (fact[4] == 0) {
    first_of_centre = first_places(centres, n_owned);
  } else {
    const auto [values, order] = sorted(centres);
    first_of_centre = first_places(values, n_owned);
    centre_order = order;
  }
}

const EdgesByNode::Order& EdgesByNode::by_neighbour() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!by_neighbour_.first.defined()) {
    const auto [values, order] = sorted(edge_index.select(0, 1));
    by_neighbour_ = {first_places(values, n_nodes_), order};
  }
  return by_neighbour_;
}

std::shared_ptr<EdgesByNode> EdgesByNode::of(const at::Tensor& edge_index, std::int64_t n_owned, std::int64_t n_nodes) {
  const Graph graph{edge_index, version_of(edge_index), n_owned, n_nodes};
  Remembered& remembered = Remembered::instance();
  const std::lock_guard<std::mutex> lock(remembered.mutex);
  auto& device = remembered.devices[edge_index.device().index()];
  if (device.last != graph) {
    device.order = std::make_shared<EdgesByNode>(edge_index, n_owned, n_nodes, device.sound == graph);
    device.last = graph;
  }
  return device.order;
}

void EdgesByNode::declare_sound(const at::Tensor& edge_index, std::int64_t n_owned, std::int64_t n_nodes) {
  Remembered& remembered = Remembered::instance();
  const std::lock_guard<std::mutex> lock(remembered.mutex);
  remembered.devices[edge_index.device().index()].sound = Graph{edge_index, version_of(edge_index), n_owned, n_nodes};
}

void EdgesByNode::forget(at::Device device) {
  Remembered& remembered = Remembered::instance();
  const std::lock_guard<std::mutex> lock(remembered.mutex);
  remembered.devices.erase(device.index());
}

}  // namespace mlip::gpu
