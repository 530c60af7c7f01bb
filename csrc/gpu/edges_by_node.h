// Edges in the order of their centres and of their neighbours, on the device: what lets sums over edges do without
// atomic operations. Made once for each list of edges, and used by all convolutions of an evaluation.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <mutex>

namespace mlip::gpu {

class EdgesByNode {
 public:
  /// @param edge_index int64 [2, n_edges]
  /// @param sound the caller knows that indices are in range and centres in ascending order: the host need not wait to
  ///              see for itself
  /// @throws c10::IndexError when an edge has a centre outside [0, n_owned) or a neighbour outside [0, n_nodes)
  EdgesByNode(const at::Tensor& edge_index, std::int64_t n_owned, std::int64_t n_nodes, bool sound = false);

  /// The one for these edges: that of the last call on this device, when they are still the same.
  static std::shared_ptr<EdgesByNode> of(const at::Tensor& edge_index, std::int64_t n_owned, std::int64_t n_nodes);

  /// What `of` may believe of these edges, with these numbers of nodes, until `forget`.
  static void declare_sound(const at::Tensor& edge_index, std::int64_t n_owned, std::int64_t n_nodes);

  /// After an evaluation: the edges of the next one lie elsewhere, and those of the last take 28 bytes each.
  static void forget(at::Device device);

  at::Tensor edge_index;       ///< contiguous
  at::Tensor first_of_centre;  ///< int64 [n_owned + 1]
  at::Tensor centre_order;     ///< int64 [n_edges]; undefined when edges are stored centre by centre

  /// int64 [n_nodes + 1] and [n_edges]. Made at the first call: only the backward pass wants them.
  const at::Tensor& first_of_neighbour() { return by_neighbour().first; }
  const at::Tensor& neighbour_order() { return by_neighbour().order; }

 private:
  struct Order {
    at::Tensor first, order;
  };
  const Order& by_neighbour();

  std::int64_t n_nodes_;
  std::mutex mutex_;
  Order by_neighbour_;
};

}  // namespace mlip::gpu
