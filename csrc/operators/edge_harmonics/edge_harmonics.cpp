// The operator `mlip::edge_harmonics`: length and spherical harmonics of every edge, in one pass.
//
//   edge_harmonics(vectors [n_edges, 3], l_max) -> distances [n_edges], harmonics [n_edges, (l_max+1)²]
//
// Real harmonics of the direction as e3nn orders and scales them ('component': the squares of the 2l+1 components of
// one l add up to 2l+1). The polar axis is y, the azimuth is counted from z towards x: with u = vector / distance,
//
//   c_m + i s_m = (u_z + i u_x)^m,      P_lm = d^m P_l(u_y) / d u_y^m      (P_l: Legendre's polynomial)
//   Y_l,m = N_lm P_lm c_m,  Y_l,-m = N_lm P_lm s_m,  N_lm² = (2 - [m = 0]) (2l+1) (l-m)! / (l+m)!
//
// A direction that does not exist (two atoms on one spot) is zero, as in e3nn. The gradient uses dP_lm / du_y =
// P_l,m+1. CPUs and GPUs have kernels; other devices, and the tests, take the same recurrences over torch's operators.
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <cmath>
#include <vector>

#include "core/native_operator.h"
#include "operators/autograd.h"
#include "operators/edge_harmonics/edge_harmonics_recurrences.h"
#include "operators/edge_harmonics/edge_harmonics_shared.h"
#include "operators/gpu.h"
#include "operators/new_tensor.h"

namespace mlip {
namespace {

using torch::Tensor;

const auto norm = harmonic_norms();

std::tuple<Tensor, Tensor> reference(const Tensor& vectors, std::int64_t l_max) {
  check_edge_vectors(vectors, l_max);
  const int l_last = static_cast<int>(l_max);
  const Tensor distances = torch::linalg_vector_norm(vectors, 2, {1});
  const auto u = (vectors / distances.clamp_min(1e-12).unsqueeze(1)).unbind(1);
  const Tensor one = torch::ones_like(distances), zero = torch::zeros_like(distances);
  std::vector<Tensor> p(highest_size), c(highest_l + 1), s(highest_l + 1), columns(highest_size);
  legendre(u[1], one, l_last, p.data());
  azimuthal(u[0], u[2], one, zero, l_last, c.data(), s.data());
  for (int l = 0; l <= l_last; ++l) {
    const int centre = l * l + l;
    for (int m = 0; m <= l; ++m) {
      columns[centre + m] = p[centre + m] * c[m] * norm[centre + m];
      if (m > 0) columns[centre - m] = p[centre + m] * s[m] * norm[centre + m];
    }
  }
  columns.resize((l_last + 1) * (l_last + 1));
  return {distances, torch::stack(columns, 1)};
}

// ---- CPU -----------------------------------------------------------------------------------------------------

const auto square_root = [](double value) { return std::sqrt(value); };
constexpr std::int64_t fewest_edges = 256;  // less is not worth waking a thread

std::tuple<Tensor, Tensor> forward_cpu(const Tensor& vectors, std::int64_t l_max) {
  check_edge_vectors(vectors, l_max);
  const Tensor dense = vectors.contiguous();
  const int l_last = static_cast<int>(l_max), size = (l_last + 1) * (l_last + 1);
  const std::int64_t n_edges = dense.size(0);
  Tensor distances = new_tensor({n_edges}, dense), harmonics = new_tensor({n_edges, size}, dense);
  AT_DISPATCH_FLOATING_TYPES(dense.scalar_type(), "edge_harmonics", [&] {
    const scalar_t* const source = dense.data_ptr<scalar_t>();
    scalar_t* const lengths = distances.data_ptr<scalar_t>();
    scalar_t* const rows = harmonics.data_ptr<scalar_t>();
    at::parallel_for(0, n_edges, fewest_edges, [&](std::int64_t begin, std::int64_t end) {
      EdgeGeometry<highest_l> edge;
      for (std::int64_t e = begin; e < end; ++e) {
        edge.set(source + 3 * e, l_last, square_root);
        lengths[e] = static_cast<scalar_t>(edge.distance);
        edge.harmonics(norm.data(), l_last, rows + size * e);
      }
    });
  });
  return {distances, harmonics};
}

/// -> gradient of the vectors
Tensor backward_cpu(const Tensor& distances_gradient, const Tensor& harmonics_gradient, const Tensor& vectors,
                    std::int64_t l_max) {
  check_harmonic_gradients(distances_gradient, harmonics_gradient, vectors, l_max);
  const int l_last = static_cast<int>(l_max), size = (l_last + 1) * (l_last + 1);
  const std::int64_t n_edges = vectors.size(0);
  const Tensor dense = vectors.contiguous(), of_distances = distances_gradient.contiguous(),
               of_harmonics = harmonics_gradient.contiguous();
  Tensor result = new_tensor(dense.sizes(), dense);
  AT_DISPATCH_FLOATING_TYPES(dense.scalar_type(), "edge_harmonics_backward", [&] {
    const scalar_t* const source = dense.data_ptr<scalar_t>();
    const scalar_t* const lengths = of_distances.data_ptr<scalar_t>();
    const scalar_t* const rows = of_harmonics.data_ptr<scalar_t>();
    scalar_t* const target = result.data_ptr<scalar_t>();
    at::parallel_for(0, n_edges, fewest_edges, [&](std::int64_t begin, std::int64_t end) {
      EdgeGeometry<highest_l> edge;
      for (std::int64_t e = begin; e < end; ++e) {
        edge.set(source + 3 * e, l_last, square_root);
        edge.gradient(norm.data(), l_last, lengths[e], rows + size * e, target + 3 * e);
      }
    });
  });
  return result;
}

// ---- autograd ------------------------------------------------------------------------------------------------

std::tuple<Tensor, Tensor> forward_autograd(const Tensor& vectors, std::int64_t l_max) {
  if (!has_own_kernels(vectors.device())) return reference(vectors, l_max);
  const auto forward = [&]() -> Recorded {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("mlip::edge_harmonics", "").typed<decltype(forward_cpu)>();
    const auto [distances, harmonics] = op.call(vectors, l_max);
    return {{distances, harmonics}, {vectors}};
  };
  const auto outputs =
      record({vectors}, forward, [l_max](const auto& gradients, const auto& kept, const auto&) -> std::vector<Tensor> {
        const LastDerivative only("edge_harmonics");
        static const auto op = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("mlip::edge_harmonics_backward", "")
                                   .typed<decltype(backward_cpu)>();
        return {op.call(gradients[0], gradients[1], kept[0], l_max)};
      });
  return {outputs[0], outputs[1]};
}

// ---- without autograd ----------------------------------------------------------------------------------------

class NativeEdgeHarmonics : public NativeOperator {
 public:
  explicit NativeEdgeHarmonics(std::int64_t l_max) : l_max_(l_max) {}

  Tensors forward(Tensors inputs, std::int64_t, Kept* kept) const override {
    auto [distances, harmonics] = (inputs[0].is_cpu() ? forward_cpu : gpu::edge_harmonics)(inputs[0], l_max_);
    if (kept != nullptr) kept->tensors = std::move(inputs);
    return {std::move(distances), std::move(harmonics)};
  }

  void backward(const Tensors& gradients, const Kept& kept, const std::vector<bool>&, Tensors& sums) const override {
    const Tensor& vectors = kept.tensors[0];
    const auto pass = vectors.is_cpu() ? backward_cpu : gpu::edge_harmonics_backward;
    add_gradient(sums[0], pass(gradients[0], gradients[1], vectors, l_max_));
  }

  std::size_t n_outputs() const override { return 2; }

 private:
  std::int64_t l_max_;
};

const RegisterNative native("mlip::edge_harmonics",
                            [](const std::vector<c10::IValue>& arguments,
                               at::Device device) -> std::unique_ptr<NativeOperator> {
                              if (!has_own_kernels(device)) return nullptr;
                              if (!arguments[0].isNone() || arguments[1].isNone()) return nullptr;
                              return std::make_unique<NativeEdgeHarmonics>(arguments[1].toInt());
                            });

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def("edge_harmonics(Tensor vectors, int l_max) -> (Tensor, Tensor)");
  library.def(
      "edge_harmonics_backward(Tensor distances_gradient, Tensor harmonics_gradient, Tensor vectors, int l_max) -> "
      "Tensor");
  library.def("edge_harmonics_reference(Tensor vectors, int l_max) -> (Tensor, Tensor)", mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("edge_harmonics", mlip::forward_cpu);
  library.impl("edge_harmonics_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CUDA, library) {
  library.impl("edge_harmonics", mlip::gpu::edge_harmonics);
  library.impl("edge_harmonics_backward", mlip::gpu::edge_harmonics_backward);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("edge_harmonics", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("edge_harmonics", mlip::forward_autograd); }
