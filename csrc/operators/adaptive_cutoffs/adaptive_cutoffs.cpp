// The operator `mlip::adaptive_cutoffs`: PET's cutoff of each atom, within which it has about as many neighbours as the
// model says.
//
//   adaptive_cutoffs(distances, centres, n_atoms, n_neighbours, cutoff, width) -> cutoffs [n_atoms], slopes
//   [n_edges]
//
// The cutoff r of an atom with edges e of length d[e] solves
//   Σ_e w((d[e] - r) / width + 1) + n_neighbours (r / cutoff)³ = n_neighbours,   0 <= r <= cutoff
//   w(s) = (1 + tanh(cot πs)) / 2, 1 for s <= 0 and 0 for s >= 1
// with ten steps of Newton's method, each of which stays between the bounds that the steps before have found, and is at
// least cutoff / 16.
//
//   distances     d, [n_edges] in Å
//   centres       of edges, int64 [n_edges] in [0, n_atoms)
//   slopes        ∂r/∂d of each edge, by the theorem of implicit functions: what the pass back needs
//
// Other devices compute the same from torch's own operators, which is also the reference that the tests use:
// `mlip::adaptive_cutoffs_reference`.
#include <torch/script.h>

#include <numbers>
#include <tuple>
#include <vector>

#include "operators/adaptive_cutoffs/adaptive_cutoffs_kernels.h"
#include "operators/autograd.h"
#include "operators/edges_by_centre.h"
#include "operators/instruction_sets.h"

namespace mlip {
namespace {

using at::Tensor;

void check(const Tensor& distances, const Tensor& centres, double n_neighbours, double cutoff, double width) {
  TORCH_CHECK(
      distances.dim() == 1 && centres.sym_sizes() == distances.sym_sizes() && centres.scalar_type() == at::kLong,
      "adaptive_cutoffs: expected distances [n_edges] and centres [n_edges] of Long, found ", distances.sym_sizes(),
      " and ", centres.sym_sizes(), " of ", centres.scalar_type());
  TORCH_CHECK(n_neighbours > 0 && cutoff > 0 && width > 0,
              "adaptive_cutoffs: expected n_neighbours, cutoff and width above 0, found ", n_neighbours, ", ", cutoff,
              " and ", width);
}

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, and all atoms at once.
std::tuple<Tensor, Tensor> reference(const Tensor& distances, const Tensor& centres, std::int64_t n_atoms,
                                     double n_neighbours, double cutoff, double width) {
  check(distances, centres, n_neighbours, cutoff, width);
  const Tensor zeros = at::zeros({n_atoms}, distances.options());
  // The number of neighbours, its slope, and the slopes of its terms.
  const auto count = [&](const Tensor& r) {
    const Tensor s = (distances - (r.index_select(0, centres) - width)) / width;
    const Tensor angle = std::numbers::pi * s.clamp(boundary, 1.0 - boundary);
    const Tensor sine = at::sin(angle), tangent = at::tanh(at::cos(angle) / sine);
    const Tensor active = at::logical_and(s > 0, s < 1);
    const Tensor values = at::where(active, 0.5 * (1 + tangent), (s <= 0).to(s.scalar_type()));
    const Tensor slopes = (0.5 * std::numbers::pi / width) * (1 - tangent.square()) / sine.square() * active;
    const Tensor x = r / cutoff;
    return std::make_tuple(zeros.index_add(0, centres, values) + n_neighbours * x.pow(3),
                           zeros.index_add(0, centres, slopes) + (3 * n_neighbours / cutoff) * x.square(), slopes);
  };
  Tensor low = zeros, high = zeros + cutoff, r = 0.5 * high;
  for (int step = 0; step < newton_steps; ++step) {
    const auto [value, slope, _] = count(r);
    const Tensor excess = value - n_neighbours, below = excess <= 0;
    low = at::where(below, r, low);
    high = at::where(below, high, r);
    const Tensor next = r - excess / slope.clamp_min(least_slope);
    r = at::where(at::logical_and(next >= low, next <= high), next, 0.5 * (low + high));
  }
  const auto [value, slope, slopes] = count(r);
  const Tensor inverse = slope.clamp_min(least_slope).reciprocal();
  const Tensor root = r - (value - n_neighbours) * inverse, found = root.clamp(least_part_of_cutoff * cutoff, cutoff);
  return {found, slopes * (inverse * (root == found)).index_select(0, centres)};
}

// ---- CPU -----------------------------------------------------------------------------------------------------

std::tuple<Tensor, Tensor> forward_cpu(const Tensor& distances, const Tensor& centres, std::int64_t n_atoms,
                                       double n_neighbours, double cutoff, double width) {
  check(distances, centres, n_neighbours, cutoff, width);
  const Tensor of_edges = centres.contiguous();
  const EdgesByCentre edges("adaptive_cutoffs", of_edges.const_data_ptr<std::int64_t>(), of_edges.numel(), n_atoms);
  const Tensor in_order = edges.in_order(distances);
  const std::int64_t most_edges = edges.most_edges_of_a_centre();

  const Tensor cutoffs = at::empty({n_atoms}, distances.options()), slopes = at::empty_like(in_order);
  AT_DISPATCH_FLOATING_TYPES(distances.scalar_type(), "adaptive_cutoffs", [&] {
    const AdaptiveCutoffsProblem<scalar_t> problem{static_cast<scalar_t>(n_neighbours), static_cast<scalar_t>(cutoff),
                                                   static_cast<scalar_t>(width), edges.first.data(),
                                                   in_order.const_data_ptr<scalar_t>()};
    const AdaptiveCutoffsKernels<scalar_t>& kernels = *instruction_set().kernels<scalar_t>().adaptive_cutoffs;
    scalar_t* const to = cutoffs.data_ptr<scalar_t>();
    scalar_t* const to_slopes = slopes.data_ptr<scalar_t>();
    for_chunks(edges.chunks(), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      constexpr std::int64_t widest_vector = 64 / sizeof(scalar_t);
      const at::AutoDispatchBelowADInplaceOrView below_autograd;  // of this thread
      const Tensor scratch = at::empty({most_edges + widest_vector}, distances.options());
      kernels.solve(problem, begin, end, to, to_slopes, scratch.data_ptr<scalar_t>());
    });
  });
  return {cutoffs, edges.as_given(slopes)};
}

// ---- autograd ------------------------------------------------------------------------------------------------

const auto& forward_operator() {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mlip::adaptive_cutoffs", "").typed<decltype(forward_cpu)>();
  return op;
}

std::tuple<Tensor, Tensor> forward_autograd(const Tensor& distances, const Tensor& centres, std::int64_t n_atoms,
                                            double n_neighbours, double cutoff, double width) {
  const auto forward = [&]() -> Recorded {
    const auto [cutoffs, slopes] = forward_operator().call(distances, centres, n_atoms, n_neighbours, cutoff, width);
    return {{cutoffs}, {slopes, centres}};
  };
  if (needs_gradient({distances}))
    return {record({distances}, forward,
                   [](const auto& gradients, const auto& kept, const auto&) -> std::vector<Tensor> {
                     const LastDerivative only("adaptive_cutoffs");
                     return {gradients[0].index_select(0, kept[1]) * kept[0]};
                   })[0],
            at::empty({0}, distances.options())};
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return forward_operator().call(distances, centres, n_atoms, n_neighbours, cutoff, width);
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "adaptive_cutoffs(Tensor distances, Tensor centres, int n_atoms, float n_neighbours, float cutoff, "
      "float width) -> (Tensor, Tensor)");
  library.def(
      "adaptive_cutoffs_reference(Tensor distances, Tensor centres, int n_atoms, float n_neighbours, float cutoff, "
      "float width) -> (Tensor, Tensor)",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) { library.impl("adaptive_cutoffs", mlip::forward_cpu); }

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("adaptive_cutoffs", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("adaptive_cutoffs", mlip::forward_autograd); }
