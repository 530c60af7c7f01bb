// Radial weights as tables over the distance, by torch's operators. radial_table_layout.h has the formulas,
// radial_weights.h the CPU's kernels.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "operators/radial_table_layout.h"

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

/// Whether a table has polynomials, as files of before splines do.
inline bool has_polynomials(const at::Tensor& table, bool several) { return table.dim() == (several ? 4 : 3); }

/// @param name of the operator, for the message
/// @param several tables, with one more dimension
/// @throws c10::Error for a shape that is neither of radial_table_layout.h's, and a kink outside of the table
inline void check_table(const char* name, const at::Tensor& table, bool several, std::int64_t n_weights,
                        std::int64_t kink) {
  const bool polynomials = has_polynomials(table, several);
  const std::int64_t n_rows = table.dim() < 2 ? 0 : table.size(several ? 1 : 0);
  TORCH_CHECK((polynomials ? table.size(-2) == 6 : table.dim() == (several ? 3 : 2)) && table.size(-1) == n_weights,
              name, ": table is ", table.sizes(), ", expected ", several ? "[n_tables, n_rows, " : "[n_rows, ",
              n_weights, "]");
  TORCH_CHECK(kink == 0 || (!polynomials && kink > 0 && kink < n_rows - 10), name, ": a kink at knot ", kink,
              " of a table of ", n_rows, " rows");
  TORCH_CHECK(n_rows >= (polynomials ? 1 : kink == 0 ? 6 : 12), name, ": a table of ", n_rows, " rows");
}

/// @param kink number of a knot, 0 for none
inline RadialTableLayout layout_of(const at::Tensor& table, bool several, double step, std::int64_t kink) {
  RadialTableLayout layout{};
  layout.is_spline = !has_polynomials(table, several);
  layout.n_rows = table.size(several ? 1 : 0) * (layout.is_spline ? 1 : 6);
  layout.n_intervals = layout.is_spline ? layout.n_rows - (kink == 0 ? 5 : 10) : layout.n_rows / 6;
  layout.kink = kink == 0 ? layout.n_intervals : kink;
  layout.inverse_step = 1.0 / step;
  return layout;
}

/// @param distances [n_edges] Å
/// @param table see radial_table_layout.h; or several with `table_of_edge` [n_edges]
/// @param step Å
/// @param kink number of a knot, 0 for none
/// @return [n_edges, n_weights]
inline at::Tensor weights_of_table(const char* name, const at::Tensor& distances, const at::Tensor& table, double step,
                                   std::int64_t kink, const std::optional<at::Tensor>& table_of_edge = std::nullopt) {
  check_distances(name, distances);
  const RadialTableLayout layout = layout_of(table, table_of_edge.has_value(), step, kink);
  const at::Tensor position = distances / step;
  const at::Tensor interval = position.detach().clamp(0, layout.n_intervals - 1).to(at::kLong);
  const at::Tensor s = (position - interval).unsqueeze(1);
  at::Tensor first = layout.is_spline ? interval + interval.ge(layout.kink).mul(5) : interval * 6;
  if (table_of_edge) first = first + *table_of_edge * layout.n_rows;
  const at::Tensor values = table.reshape({-1, table.size(-1)});
  const auto row = [&](int k) { return values.index_select(0, first + k); };
  if (!layout.is_spline) {
    at::Tensor weights = row(5);
    for (int power = 4; power >= 0; --power) weights = weights * s + row(power);
    return weights;
  }
  at::Tensor before = row(0), weights = before;
  for (int j = 0; j < 5; ++j) {
    at::Tensor sum = at::full_like(s, sums_of_spline[5][j] / 120.0);
    for (int power = 4; power >= 0; --power) sum = sum * s + sums_of_spline[power][j] / 120.0;
    const at::Tensor next = row(j + 1);
    weights = weights + (next - before) * sum;
    before = next;
  }
  return weights;
}

}  // namespace mlip
