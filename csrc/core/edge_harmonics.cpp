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
// P_l,m+1. The CPU has a kernel; other devices, and the tests, take the same recurrence over torch's operators.
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <array>
#include <cmath>
#include <vector>

namespace mlip {
namespace {

using torch::Tensor;

constexpr int highest_l = 10;
constexpr int highest_size = (highest_l + 1) * (highest_l + 1);

void check_inputs(const Tensor& vectors, std::int64_t l_max) {
  TORCH_CHECK(vectors.dim() == 2 && vectors.size(1) == 3 && vectors.is_floating_point(), "edge_harmonics: vectors are ",
              vectors.sizes(), ", expected floating-point [n_edges, 3]");
  TORCH_CHECK(l_max >= 0 && l_max <= highest_l, "edge_harmonics: l_max is ", l_max, ", expected 0 to ", highest_l);
}

/// N_lm at [l² + l + m], m >= 0.
std::array<double, highest_size> norms() {
  std::array<double, highest_size> result{};
  for (int l = 0; l <= highest_l; ++l) {
    double square = 2 * l + 1;
    result[l * l + l] = std::sqrt(square);
    square *= 2;
    for (int m = 1; m <= l; ++m) {
      square /= (l + m) * (l - m + 1);
      result[l * l + l + m] = std::sqrt(square);
    }
  }
  return result;
}

const std::array<double, highest_size> norm = norms();

/// P_lm at [l² + l + m] for 0 <= m <= l <= l_max, of a number or a column of numbers.
template <typename Value>
void legendre(const Value& y, const Value& one, int l_max, Value* p) {
  const auto at = [](int l, int m) { return l * l + l + m; };
  p[0] = one;
  for (int m = 0; m <= l_max; ++m) {
    if (m > 0) p[at(m, m)] = p[at(m - 1, m - 1)] * static_cast<double>(2 * m - 1);
    if (m < l_max) p[at(m + 1, m)] = y * p[at(m, m)] * static_cast<double>(2 * m + 1);
    for (int l = m + 2; l <= l_max; ++l)
      p[at(l, m)] =
          (y * p[at(l - 1, m)] * static_cast<double>(2 * l - 1) - p[at(l - 2, m)] * static_cast<double>(l + m - 1)) *
          (1.0 / (l - m));
  }
}

/// c_m and s_m for 0 <= m <= l_max.
template <typename Value>
void azimuthal(const Value& x, const Value& z, const Value& one, const Value& zero, int l_max, Value* c, Value* s) {
  c[0] = one;
  s[0] = zero;
  for (int m = 1; m <= l_max; ++m) {
    c[m] = z * c[m - 1] - x * s[m - 1];
    s[m] = z * s[m - 1] + x * c[m - 1];
  }
}

std::tuple<Tensor, Tensor> reference(const Tensor& vectors, std::int64_t l_max) {
  check_inputs(vectors, l_max);
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

/// Direction and length of one edge, and the two families of polynomials. Computed in double: it is little work beside
/// the convolution, and float32 results are then the nearest ones.
struct EdgeGeometry {
  double distance, u[3];
  double p[highest_size], c[highest_l + 1], s[highest_l + 1];

  template <typename T>
  void set(const T* vector, int l_max) {
    distance = std::sqrt(double(vector[0]) * vector[0] + double(vector[1]) * vector[1] + double(vector[2]) * vector[2]);
    const double inverse = distance > 0.0 ? 1.0 / distance : 0.0;
    for (int k = 0; k < 3; ++k) u[k] = inverse * vector[k];
    legendre(u[1], 1.0, l_max, p);
    azimuthal(u[0], u[2], 1.0, 0.0, l_max, c, s);
  }
};

constexpr std::int64_t fewest_edges = 256;  // less is not worth waking a thread

std::tuple<Tensor, Tensor> forward_cpu(const Tensor& vectors, std::int64_t l_max) {
  check_inputs(vectors, l_max);
  const Tensor dense = vectors.contiguous();
  const int l_last = static_cast<int>(l_max), size = (l_last + 1) * (l_last + 1);
  const std::int64_t n_edges = dense.size(0);
  Tensor distances = torch::empty({n_edges}, dense.options()),
         harmonics = torch::empty({n_edges, size}, dense.options());
  AT_DISPATCH_FLOATING_TYPES(dense.scalar_type(), "edge_harmonics", [&] {
    const scalar_t* const source = dense.data_ptr<scalar_t>();
    scalar_t* const lengths = distances.data_ptr<scalar_t>();
    scalar_t* const rows = harmonics.data_ptr<scalar_t>();
    at::parallel_for(0, n_edges, fewest_edges, [&](std::int64_t begin, std::int64_t end) {
      EdgeGeometry edge;
      for (std::int64_t e = begin; e < end; ++e) {
        edge.set(source + 3 * e, l_last);
        lengths[e] = static_cast<scalar_t>(edge.distance);
        scalar_t* const row = rows + size * e;
        for (int l = 0; l <= l_last; ++l) {
          const int centre = l * l + l;
          row[centre] = static_cast<scalar_t>(norm[centre] * edge.p[centre]);
          for (int m = 1; m <= l; ++m) {
            const double scaled = norm[centre + m] * edge.p[centre + m];
            row[centre + m] = static_cast<scalar_t>(scaled * edge.c[m]);
            row[centre - m] = static_cast<scalar_t>(scaled * edge.s[m]);
          }
        }
      }
    });
  });
  return {distances, harmonics};
}

/// -> gradient of the vectors
Tensor backward_cpu(const Tensor& distances_gradient, const Tensor& harmonics_gradient, const Tensor& vectors,
                    std::int64_t l_max) {
  check_inputs(vectors, l_max);
  const int l_last = static_cast<int>(l_max), size = (l_last + 1) * (l_last + 1);
  const std::int64_t n_edges = vectors.size(0);
  TORCH_CHECK(distances_gradient.numel() == n_edges && harmonics_gradient.numel() == n_edges * size &&
                  distances_gradient.scalar_type() == vectors.scalar_type() &&
                  harmonics_gradient.scalar_type() == vectors.scalar_type(),
              "edge_harmonics_backward: a gradient has the wrong shape or type");
  const Tensor dense = vectors.contiguous(), of_distances = distances_gradient.contiguous(),
               of_harmonics = harmonics_gradient.contiguous();
  Tensor result = torch::empty_like(dense);
  AT_DISPATCH_FLOATING_TYPES(dense.scalar_type(), "edge_harmonics_backward", [&] {
    const scalar_t* const source = dense.data_ptr<scalar_t>();
    const scalar_t* const lengths = of_distances.data_ptr<scalar_t>();
    const scalar_t* const rows = of_harmonics.data_ptr<scalar_t>();
    scalar_t* const target = result.data_ptr<scalar_t>();
    at::parallel_for(0, n_edges, fewest_edges, [&](std::int64_t begin, std::int64_t end) {
      EdgeGeometry edge;
      for (std::int64_t e = begin; e < end; ++e) {
        edge.set(source + 3 * e, l_last);
        const scalar_t* const row = rows + size * e;
        double g[3] = {0.0, 0.0, 0.0};  // of the direction, as if its components were independent
        for (int l = 1; l <= l_last; ++l) {
          const int centre = l * l + l;
          g[1] += row[centre] * norm[centre] * edge.p[centre + 1];
          for (int m = 1; m <= l; ++m) {
            const double of_c = norm[centre + m] * row[centre + m], of_s = norm[centre + m] * row[centre - m];
            const double slope = m * edge.p[centre + m];
            if (m < l) g[1] += (of_c * edge.c[m] + of_s * edge.s[m]) * edge.p[centre + m + 1];
            g[2] += slope * (of_c * edge.c[m - 1] + of_s * edge.s[m - 1]);
            g[0] += slope * (of_s * edge.c[m - 1] - of_c * edge.s[m - 1]);
          }
        }
        const double along = g[0] * edge.u[0] + g[1] * edge.u[1] + g[2] * edge.u[2];
        const double inverse = edge.distance > 0.0 ? 1.0 / edge.distance : 0.0;
        for (int k = 0; k < 3; ++k)
          target[3 * e + k] =
              static_cast<scalar_t>(inverse * (g[k] - along * edge.u[k]) + double(lengths[e]) * edge.u[k]);
      }
    });
  });
  return result;
}

// ---- autograd ------------------------------------------------------------------------------------------------

class EdgeHarmonics : public torch::autograd::Function<EdgeHarmonics> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Tensor& vectors,
                                                std::int64_t l_max) {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("mlip::edge_harmonics", "").typed<decltype(forward_cpu)>();
    context->save_for_backward({vectors});
    context->saved_data["l_max"] = l_max;
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    const auto [distances, harmonics] = op.call(vectors, l_max);
    return {distances, harmonics};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("mlip::edge_harmonics_backward", "")
                               .typed<decltype(backward_cpu)>();
    const auto saved = context->get_saved_variables();
    return {op.call(gradients[0], gradients[1], saved[0], context->saved_data["l_max"].toInt()), Tensor()};
  }
};

std::tuple<Tensor, Tensor> forward_autograd(const Tensor& vectors, std::int64_t l_max) {
  if (!vectors.is_cpu()) return reference(vectors, l_max);
  const auto outputs = EdgeHarmonics::apply(vectors, l_max);
  return {outputs[0], outputs[1]};
}

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

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("edge_harmonics", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("edge_harmonics", mlip::forward_autograd); }
