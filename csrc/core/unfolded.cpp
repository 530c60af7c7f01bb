#include "core/unfolded.h"

#include <algorithm>

namespace mlip {
namespace {

constexpr double same_shift = 1e-2;  // Å: far below any lattice vector, far above roundings

std::int64_t pair_of(std::int64_t a, int b) { return (a << 24) + b; }

}  // namespace

void UnfoldedGraph::build(const Graph& folded, const std::vector<double>& homes, int hops) {
  graph_.n_owned = folded.n_owned;
  graph_.node_types = folded.node_types;
  graph_.resize_edges(0);
  positions_ = homes;
  image_of_.clear();
  shift_of_image_.clear();
  shifts_.assign(1, Shift{});
  sums_of_shifts_.clear();
  node_of_image_.clear();
  for (int axis = 0; axis < 3; ++axis) {
    double centre = 0.0;
    for (std::int64_t node = 0; node < folded.n_owned; ++node) centre += homes[3 * node + axis];
    centre /= static_cast<double>(std::max<std::int64_t>(folded.n_owned, 1));
    for (std::size_t k = axis; k < positions_.size(); k += 3) positions_[k] -= centre;
  }

  const std::int64_t n_folded = folded.n_nodes(), n_edges = folded.n_edges();
  std::vector<std::int64_t> first(n_folded, 0), last(n_folded, 0);  // edges of each centre
  std::vector<int> shift_of_edge(n_edges);
  for (std::int64_t e = 0; e < n_edges; ++e) {
    const std::int64_t i = folded.centres[e], j = folded.neighbours[e];
    if (e == 0 || folded.centres[e - 1] != i) first[i] = e;
    last[i] = e + 1;
    Shift shift;
    for (int axis = 0; axis < 3; ++axis)
      shift[axis] = folded.vectors[3 * e + axis] - (homes[3 * j + axis] - homes[3 * i + axis]);
    shift_of_edge[e] = find_shift(shift);
    graph_.add_edge(i, find_node(j, shift_of_edge[e]), folded.vectors.data() + 3 * e);
  }
  std::int64_t begin = n_folded;
  for (int hop = 1; hop < hops; ++hop) {
    const std::int64_t end = graph_.n_nodes();
    for (std::int64_t node = begin; node < end; ++node) {
      const std::int64_t home = image_of_[node - n_folded];
      const int shift = shift_of_image_[node - n_folded];
      for (std::int64_t e = first[home]; e < last[home]; ++e)
        graph_.add_edge(node, find_node(folded.neighbours[e], sum_of_shifts(shift, shift_of_edge[e])),
                        folded.vectors.data() + 3 * e);
    }
    begin = end;
  }
}

int UnfoldedGraph::find_shift(const Shift& shift) {
  const auto found = std::find_if(shifts_.begin(), shifts_.end(), [&](const Shift& known) {
    double squared = 0.0;
    for (int axis = 0; axis < 3; ++axis) squared += (known[axis] - shift[axis]) * (known[axis] - shift[axis]);
    return squared < same_shift * same_shift;
  });
  if (found == shifts_.end()) {
    shifts_.push_back(shift);
    return static_cast<int>(shifts_.size()) - 1;
  }
  return static_cast<int>(found - shifts_.begin());
}

int UnfoldedGraph::sum_of_shifts(int a, int b) {
  const auto [found, is_new] = sums_of_shifts_.try_emplace(pair_of(a, b), 0);
  if (is_new) {
    Shift sum;
    for (int axis = 0; axis < 3; ++axis) sum[axis] = shifts_[a][axis] + shifts_[b][axis];
    found->second = find_shift(sum);
  }
  return found->second;
}

/// The node at a shift from the home of another; made if there is none yet.
std::int64_t UnfoldedGraph::find_node(std::int64_t folded_node, int shift) {
  if (shift == 0) return folded_node;
  const auto [found, is_new] = node_of_image_.try_emplace(pair_of(folded_node, shift), graph_.n_nodes());
  if (is_new) {
    graph_.node_types.push_back(graph_.node_types[folded_node]);
    image_of_.push_back(folded_node);
    shift_of_image_.push_back(shift);
    for (int axis = 0; axis < 3; ++axis)
      positions_.push_back(positions_[3 * folded_node + axis] + shifts_[shift][axis]);
  }
  return found->second;
}

Graph UnfoldedGraph::folded() const {
  Graph result = graph_;
  result.node_types.resize(n_folded());
  for (auto* nodes : {&result.centres, &result.neighbours})
    for (std::int64_t& node : *nodes) node = folded_node(node);
  return result;
}

double UnfoldedGraph::bytes() const {
  return bytes_of(graph_.centres) + bytes_of(graph_.neighbours) + bytes_of(graph_.vectors) +
         bytes_of(graph_.node_types) + bytes_of(positions_) + bytes_of(image_of_) + bytes_of(shift_of_image_);
}

}  // namespace mlip
