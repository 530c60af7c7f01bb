// The host's side of edge_harmonics.cu.
#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <cstdio>
#include <string>

#include "gpu/runtime.h"
#include "operators/edge_harmonics/edge_harmonics_shared.h"
#include "operators/gpu.h"

namespace mlip::gpu {
namespace {

using at::Tensor;

constexpr int threads_per_block = 128;

/// As in edge_harmonics.cu.
struct Arguments {
  std::int64_t n_edges;
  const void* vectors;
  void *distances, *harmonics;
  const void *distances_gradient, *harmonics_gradient;
  void* vectors_gradient;
};

std::string source(at::ScalarType type, std::int64_t l_max) {
  std::string text = warp_text;
  text += edge_harmonics_recurrences_text + real_type(type);
  text += "constexpr int l_max = " + std::to_string(l_max) + ";\n__constant__ const double harmonic_norm[] = {";
  const auto norms = harmonic_norms();
  for (int k = 0; k < (l_max + 1) * (l_max + 1); ++k) {
    char value[40];
    std::snprintf(value, sizeof value, "%a, ", norms[static_cast<std::size_t>(k)]);
    text += value;
  }
  return text + "};\n" + edge_harmonics_text;
}

void launch(const char* name, const Tensor& vectors, std::int64_t l_max, const Arguments& arguments) {
  runtime()
      .kernel(source(vectors.scalar_type(), l_max), name, vectors.device())
      ->launch((arguments.n_edges + threads_per_block - 1) / threads_per_block, threads_per_block, 0, &arguments);
}

}  // namespace

std::tuple<Tensor, Tensor> edge_harmonics(const Tensor& vectors, std::int64_t l_max) {
  const c10::DeviceGuard guard(vectors.device());
  check_edge_vectors(vectors, l_max);
  const Tensor dense = vectors.contiguous();
  const std::int64_t n_edges = dense.size(0);
  Tensor distances = at::empty({n_edges}, dense.options()),
         harmonics = at::empty({n_edges, (l_max + 1) * (l_max + 1)}, dense.options());
  Arguments arguments{};
  arguments.n_edges = n_edges;
  arguments.vectors = dense.const_data_ptr();
  arguments.distances = distances.mutable_data_ptr();
  arguments.harmonics = harmonics.mutable_data_ptr();
  launch("harmonics_of_edges", dense, l_max, arguments);
  return {distances, harmonics};
}

Tensor edge_harmonics_backward(const Tensor& distances_gradient, const Tensor& harmonics_gradient,
                               const Tensor& vectors, std::int64_t l_max) {
  const c10::DeviceGuard guard(vectors.device());
  const std::int64_t n_edges = vectors.size(0);
  check_harmonic_gradients(distances_gradient, harmonics_gradient, vectors, l_max);
  const Tensor dense = vectors.contiguous(), of_distances = distances_gradient.contiguous(),
               of_harmonics = harmonics_gradient.contiguous();
  Tensor result = at::empty_like(dense);
  Arguments arguments{};
  arguments.n_edges = n_edges;
  arguments.vectors = dense.const_data_ptr();
  arguments.distances_gradient = of_distances.const_data_ptr();
  arguments.harmonics_gradient = of_harmonics.const_data_ptr();
  arguments.vectors_gradient = result.mutable_data_ptr();
  launch("harmonics_to_vectors", dense, l_max, arguments);
  return result;
}

}  // namespace mlip::gpu
