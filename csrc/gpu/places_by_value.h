// Places of each value in a list of small whole numbers, on any device: nodes of edges, bins of atoms.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace mlip::gpu {

struct PlacesByValue {
  at::Tensor order;  ///< int32, places, value by value; those of one value ascend
  at::Tensor first;  ///< int64 [n_values + 1] into order, past values below zero

  PlacesByValue() = default;
  PlacesByValue(const at::Tensor& values, std::int64_t n_values) {
    const auto [sorted, places] = values.sort(/*stable=*/true, 0, /*descending=*/false);
    order = places.to(at::kInt);
    first = at::searchsorted(sorted, at::arange(n_values + 1, sorted.options()));
  }
};

}  // namespace mlip::gpu
