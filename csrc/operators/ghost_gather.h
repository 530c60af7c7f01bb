// `mlip::ghost_gather` for features in another memory than the CPU's: only rows that travel between ranks come to the
// CPU, and only ghosts' rows go back, or the sums for those that were lent.
#pragma once

#include <torch/script.h>

#include "core/exchange.h"

namespace mlip {

/// @param x [n_owned, ...] float32 or float64, on any device
/// @param lent of `exchange`
/// @return [n_nodes, ...] there
torch::Tensor gather_lent(const torch::Tensor& x, std::int64_t n_nodes, Exchange& exchange, LentNodes& lent);

/// The transpose. @param gradient [n_nodes, ...] -> [n_owned, ...]
torch::Tensor gather_lent_backward(const torch::Tensor& gradient, std::int64_t n_owned, Exchange& exchange,
                                   LentNodes& lent);

}  // namespace mlip
