// Edges a few at a time, in the order of their centres: for operators that take a block of edges through all their
// steps.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>

#include <cstdint>
#include <vector>

#include "operators/edges_by_centre.h"

namespace mlip {

/// Edges that go through all steps at a time: enough for products of matrices at full speed.
inline constexpr std::int64_t block_size = 128;

/// The ends of some edges, [n] each.
struct BlockOfEdges {
  std::int64_t n = 0;
  std::vector<std::int64_t> edges, centres, neighbours;

  BlockOfEdges() : edges(block_size), centres(block_size), neighbours(block_size) {}

  /// The edges at positions [begin, end) in the order of centres, at most block_size.
  void take(const EdgesByCentre& by_centre, const at::Tensor& edge_index, std::int64_t begin, std::int64_t end) {
    const std::int64_t* const ends = edge_index.const_data_ptr<std::int64_t>();
    n = end - begin;
    for (std::int64_t k = 0; k < n; ++k) {
      edges[k] = by_centre.order.empty() ? begin + k : by_centre.order[begin + k];
      centres[k] = ends[edges[k]];
      neighbours[k] = ends[edge_index.size(1) + edges[k]];
    }
  }
};

/// body(chunk, first position, last position + 1) for the edges of the centres between two bounds, by several threads.
template <typename Body>
void for_chunks(const EdgesByCentre& edges, const std::vector<std::int64_t>& bounds, Body&& body) {
  for_chunks(bounds, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;  // of this thread
    body(chunk, edges.first[begin], edges.first[end]);
  });
}

inline std::vector<at::Tensor> contiguous(at::TensorList tensors) {
  std::vector<at::Tensor> result;
  for (const at::Tensor& tensor : tensors) result.push_back(tensor.contiguous());
  return result;
}

}  // namespace mlip
