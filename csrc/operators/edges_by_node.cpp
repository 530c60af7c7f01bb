#include "operators/edges_by_node.h"

#include <ATen/ATen.h>

#include <map>

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

}  // namespace

EdgesByNode::EdgesByNode(const at::Tensor& given, std::int64_t n_owned, std::int64_t n_nodes)
    : edge_index(given.contiguous()), given_(given), version_(version_of(given)), n_owned_(n_owned), n_nodes_(n_nodes) {
  const at::Tensor centres = edge_index.select(0, 0), neighbours = edge_index.select(0, 1);
  const std::int64_t n_edges = edge_index.size(1);
  if (n_edges == 0) {
    first_of_centre = at::zeros({n_owned + 1}, edge_index.options());
    return;
  }
  // The kernels trust every index. One look from the host at all that it must know.
  const at::Tensor descends = (centres.narrow(0, 1, n_edges - 1) < centres.narrow(0, 0, n_edges - 1)).any();
  const at::Tensor facts =
      at::stack({centres.min(), centres.max(), neighbours.min(), neighbours.max(), descends.to(at::kLong)})
          .to(at::kCPU);
  const std::int64_t* const fact = facts.const_data_ptr<std::int64_t>();
  TORCH_CHECK_INDEX(fact[0] >= 0 && fact[1] < n_owned && fact[2] >= 0 && fact[3] < n_nodes,
                    "edge_tensor_product: an edge has a centre outside [0, ", n_owned, ") or a neighbour outside [0, ",
                    n_nodes, ")");
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
  static std::mutex mutex;
  static std::map<int, std::shared_ptr<EdgesByNode>> last_of_device;
  const std::lock_guard<std::mutex> lock(mutex);
  auto& last = last_of_device[edge_index.device().index()];
  const auto same = [&](const EdgesByNode& other) {
    return other.n_owned_ == n_owned && other.n_nodes_ == n_nodes && other.given_.sizes() == edge_index.sizes() &&
           other.given_.strides() == edge_index.strides() &&
           other.given_.const_data_ptr() == edge_index.const_data_ptr() && other.version_ == version_of(edge_index);
  };
  if (!last || !same(*last)) last = std::make_shared<EdgesByNode>(edge_index, n_owned, n_nodes);
  return last;
}

}  // namespace mlip::gpu
