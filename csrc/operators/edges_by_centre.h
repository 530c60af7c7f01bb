// The edges of each centre, for operators whose CPU kernels take one centre after the other.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

namespace mlip {

/// Checks every index: the kernels trust them. Edges of centre i are `order[first[i] .. first[i+1])`.
struct EdgesByCentre {
  std::vector<std::int64_t> first;  ///< [n_owned + 1]
  std::vector<std::int64_t> order;  ///< [n_edges], empty when the edges are in order already

  /// @param name of the operator, for messages
  /// @param edge_index contiguous int64 [2, n_edges] of the CPU
  /// @throws c10::IndexError for a centre outside [0, n_owned) or a neighbour outside [0, n_nodes)
  EdgesByCentre(const char* name, const at::Tensor& edge_index, std::int64_t n_owned, std::int64_t n_nodes) {
    const std::int64_t n_edges = edge_index.size(1);
    const std::int64_t* const centres = edge_index.const_data_ptr<std::int64_t>();
    const std::int64_t* const neighbours = centres + n_edges;
    const bool valid =
        group(name, centres, n_edges, n_owned) &&
        std::all_of(neighbours, neighbours + n_edges, [&](std::int64_t node) { return node >= 0 && node < n_nodes; });
    TORCH_CHECK_INDEX(valid, name, ": an edge has a centre outside [0, ", n_owned, ") or a neighbour outside [0, ",
                      n_nodes, ")");
  }

  /// For an operator that does not read neighbours.
  /// @param centres [n_edges]
  EdgesByCentre(const char* name, const std::int64_t* centres, std::int64_t n_edges, std::int64_t n_owned) {
    TORCH_CHECK_INDEX(group(name, centres, n_edges, n_owned), name, ": an edge has a centre outside [0, ", n_owned,
                      ")");
  }

  /// Rows of edges in the order of centres, contiguous.
  at::Tensor in_order(const at::Tensor& rows) const {
    return order.empty() ? rows.contiguous() : rows.index_select(0, order_as_tensor());
  }

  /// Such rows in the order of the caller.
  at::Tensor as_given(const at::Tensor& rows) const {
    return order.empty() ? rows : at::empty_like(rows).index_copy_(0, order_as_tensor(), rows);
  }

  std::int64_t most_edges_of_a_centre() const {
    std::int64_t most = 0;
    for (std::size_t i = 0; i + 1 < first.size(); ++i) most = std::max(most, first[i + 1] - first[i]);
    return most;
  }

  /// Ranges of centres with about equal numbers of edges, [n_chunks + 1].
  std::vector<std::int64_t> chunks() const {
    constexpr std::int64_t fewest_edges = 64;  // less is not worth waking a thread
    const std::int64_t n_edges = first.back();
    const std::int64_t n_owned = static_cast<std::int64_t>(first.size()) - 1;
    const std::int64_t n = std::clamp<std::int64_t>(n_edges / fewest_edges, 1, at::get_num_threads());
    std::vector<std::int64_t> bounds(n + 1, n_owned);
    bounds[0] = 0;
    for (std::int64_t k = 1; k < n; ++k)
      bounds[k] = std::lower_bound(first.begin(), first.end() - 1, n_edges * k / n) - first.begin();
    return bounds;
  }

 private:
  at::Tensor order_as_tensor() const {
    return at::from_blob(const_cast<std::int64_t*>(order.data()), {static_cast<std::int64_t>(order.size())}, at::kLong);
  }

  /// Fills both lists. @return whether every centre is in [0, n_owned)
  bool group(const char* name, const std::int64_t* centres, std::int64_t n_edges, std::int64_t n_owned) {
    TORCH_CHECK(n_owned >= 0, name, ": ", n_owned, " owned atoms, expected 0 or more");
    first.assign(n_owned + 1, 0);
    bool sorted = true;
    std::int64_t previous = 0;
    for (std::int64_t e = 0; e < n_edges; ++e) {
      if (centres[e] < 0 || centres[e] >= n_owned) return false;
      sorted &= centres[e] >= previous;
      previous = centres[e];
      ++first[centres[e] + 1];
    }
    std::partial_sum(first.begin(), first.end(), first.begin());
    if (sorted) return true;
    order.resize(n_edges);
    std::vector<std::int64_t> next(first.begin(), first.end() - 1);
    for (std::int64_t e = 0; e < n_edges; ++e) order[next[centres[e]]++] = e;
    return true;
  }
};

/// body(chunk, first centre, last centre + 1) for each of the ranges of EdgesByCentre::chunks, by several threads.
template <typename Body>
void for_chunks(const std::vector<std::int64_t>& bounds, Body&& body) {
  at::parallel_for(0, static_cast<std::int64_t>(bounds.size()) - 1, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t chunk = begin; chunk < end; ++chunk) body(chunk, bounds[chunk], bounds[chunk + 1]);
  });
}

}  // namespace mlip
