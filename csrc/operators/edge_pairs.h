// Pairs of edges of one centre, for references that store a row for each: from torch's operators, on any device.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <utility>

namespace mlip {

/// Every edge with every edge of its centre, itself too: numbers of both, int64 [n_pairs] each, in the first's order.
/// @param centres int64 [n_edges] in [0, n_owned), in any order
inline std::pair<at::Tensor, at::Tensor> pairs_of_edges(const at::Tensor& centres, std::int64_t n_owned) {
  const at::Tensor order = at::argsort(centres);
  const at::Tensor counts = at::bincount(centres, {}, n_owned), n_partners = counts.index_select(0, centres);
  const at::Tensor first = at::repeat_interleave(at::arange(centres.size(0), centres.options()), n_partners);
  const at::Tensor place =
      at::arange(first.size(0), centres.options()) - (at::cumsum(n_partners, 0) - n_partners).index_select(0, first);
  const at::Tensor first_of_centre = (at::cumsum(counts, 0) - counts).index_select(0, centres.index_select(0, first));
  return {first, order.index_select(0, first_of_centre + place)};
}

}  // namespace mlip
