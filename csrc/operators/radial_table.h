// Radial weights as tables over the distance, by torch's operators: w(r) = Σ_k table[i, k] s^k with i = floor(r /
// step), s = r / step - i. Outside of the table i is the nearest interval. radial_weights.h has the CPU's kernels.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

namespace mlip {

/// @param name of the operator, for the message
/// @throws c10::Error if a distance is not a number
inline void check_distances(const char* name, const at::Tensor& distances) {
  TORCH_CHECK(!at::isnan(distances.detach()).any().item<bool>(), name, ": the distance of an edge is not a number");
}

/// The same on the CPU, where a loop takes less time than torch's operators for few edges.
template <typename T>
void check_distances(const char* name, const T* distances, std::int64_t n_edges) {
  TORCH_CHECK(std::none_of(distances, distances + n_edges, [](T r) { return std::isnan(r); }), name,
              ": the distance of an edge is not a number");
}

/// @param distances [n_edges] Å
/// @param table [n_intervals, 6, n_weights], or several with `table_of_edge` [n_edges]
/// @param step Å
/// @return [n_edges, n_weights]
inline at::Tensor weights_of_table(const char* name, const at::Tensor& distances, const at::Tensor& table, double step,
                                   const std::optional<at::Tensor>& table_of_edge = std::nullopt) {
  check_distances(name, distances);
  const at::Tensor position = distances / step;
  const std::int64_t n_intervals = table.size(-3);
  const at::Tensor interval = position.detach().clamp(0, n_intervals - 1).to(at::kLong);
  const at::Tensor s = (position - interval).unsqueeze(1);
  const at::Tensor rows = table_of_edge ? table.flatten(0, 1).index_select(0, *table_of_edge * n_intervals + interval)
                                        : table.index_select(0, interval);
  at::Tensor weights = rows.select(1, 5);
  for (int power = 4; power >= 0; --power) weights = weights * s + rows.select(1, power);
  return weights;
}

}  // namespace mlip
