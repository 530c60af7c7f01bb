// The operator `mlip::angle_sums`: M3GNet's sums over the angles of an edge with the other edges of its centre.
//
//   angle_sums(directions, terms, centres, n_owned, n_polynomials) -> sums
//
// of an edge e, for each function k:
//   sums[e][k] = Σ_{e' ≠ e of the centre of e} terms[e'][k] P_l(cos θ),   l = k / (n_functions / n_polynomials)
//   cos θ = directions[e] · directions[e'], clamped to ±(1 - 1e-7), where no gradient flows
//
//   directions     unit vectors, [n_edges, 3]
//   terms          [n_edges, n_functions]: those of the first Legendre polynomial P_0, then of P_1 and so on, of each
//                  the same number
//   centres        of edges, int64 [n_edges] in [0, n_owned)
//   sums           [n_edges, n_functions]
//
// The CPU takes centre by centre, and stores nothing of a pair of edges. Other devices compute the same from torch's
// own operators, which is also the reference that the tests use: `mlip::angle_sums_reference`.
#include <torch/script.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "operators/aligned_memory.h"
#include "operators/angle_sums/angle_sums_kernels.h"
#include "operators/autograd.h"
#include "operators/edge_pairs.h"
#include "operators/edges_by_centre.h"
#include "operators/instruction_sets.h"

namespace mlip {
namespace {

using at::Tensor;

void check(const Tensor& directions, const Tensor& terms, const Tensor& centres, std::int64_t n_polynomials) {
  TORCH_CHECK(
      directions.dim() == 2 && directions.size(1) == 3 && terms.dim() == 2 && terms.size(0) == directions.size(0) &&
          terms.scalar_type() == directions.scalar_type() && terms.is_floating_point(),
      "angle_sums: expected directions [n_edges, 3] and terms [n_edges, n_functions] of one floating-point "
      "type, found ",
      directions.sizes(), " of ", directions.scalar_type(), " and ", terms.sizes(), " of ", terms.scalar_type());
  TORCH_CHECK(centres.dim() == 1 && centres.size(0) == directions.size(0) && centres.scalar_type() == at::kLong,
              "angle_sums: expected centres [", directions.size(0), "] of Long, found ", centres.sizes(), " of ",
              centres.scalar_type());
  TORCH_CHECK(n_polynomials > 0 && n_polynomials <= most_polynomials && terms.size(1) % n_polynomials == 0,
              "angle_sums: expected 1 to ", most_polynomials,
              " polynomials, of each the same number of functions, found ", n_polynomials, " and ", terms.size(1));
}

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, differentiable, and a row for each pair of edges.
Tensor reference(const Tensor& directions, const Tensor& terms, const Tensor& centres, std::int64_t n_owned,
                 std::int64_t n_polynomials) {
  check(directions, terms, centres, n_polynomials);
  auto [first, second] = pairs_of_edges(centres, n_owned);
  const Tensor others = at::nonzero(first != second).squeeze(1);
  first = first.index_select(0, others);
  second = second.index_select(0, others);
  const Tensor cosine = (directions.index_select(0, first) * directions.index_select(0, second))
                            .sum(1, /*keepdim=*/true)
                            .clamp(-largest_cosine, largest_cosine);
  std::vector<Tensor> polynomials = {at::ones_like(cosine), cosine};
  for (std::int64_t l = 1; l + 1 < n_polynomials; ++l)
    polynomials.push_back(((2 * l + 1) * cosine * polynomials[l] - l * polynomials[l - 1]) / (l + 1));
  polynomials.resize(n_polynomials);
  const Tensor of_pairs =
      terms.index_select(0, second) * at::repeat_interleave(at::cat(polynomials, 1), terms.size(1) / n_polynomials, 1);
  return at::zeros_like(terms).index_add(0, first, of_pairs);
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Inputs in the order of centres, and the kernels' view of them.
template <typename T>
struct CpuCall {
  EdgesByCentre edges;
  Tensor directions, terms;
  AngleSumsProblem<T> problem;
  const AngleSumsKernels<T>& kernels = *instruction_set().kernels<T>().angle_sums;

  CpuCall(const Tensor& directions_, const Tensor& terms_, const Tensor& centres, std::int64_t n_owned,
          std::int64_t n_polynomials)
      : edges("angle_sums", centres.contiguous().const_data_ptr<std::int64_t>(), centres.size(0), n_owned),
        directions(edges.in_order(directions_)),
        terms(edges.in_order(terms_)),
        problem{n_polynomials, terms.size(1) / n_polynomials, edges.first.data(),
                directions.template const_data_ptr<T>(), terms.template const_data_ptr<T>()} {}
  CpuCall(const CpuCall&) = delete;  // `problem` views `edges`

  /// body(first centre, last centre + 1, scratch)
  template <typename Body>
  void for_centres(Body&& body) const {
    const std::int64_t room = scratch_size(problem, edges.most_edges_of_a_centre());
    for_chunks(edges.chunks(), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      const AlignedMemory<T> scratch(room);
      body(begin, end, scratch.data());
    });
  }
};

Tensor forward_cpu(const Tensor& directions, const Tensor& terms, const Tensor& centres, std::int64_t n_owned,
                   std::int64_t n_polynomials) {
  check(directions, terms, centres, n_polynomials);
  Tensor sums;
  AT_DISPATCH_FLOATING_TYPES(terms.scalar_type(), "angle_sums", [&] {
    const CpuCall<scalar_t> call(directions, terms, centres, n_owned, n_polynomials);
    const Tensor found = at::empty_like(call.terms);
    scalar_t* const to = found.data_ptr<scalar_t>();
    call.for_centres([&](std::int64_t begin, std::int64_t end, scalar_t* scratch) {
      call.kernels.forward(call.problem, begin, end, to, scratch);
    });
    sums = call.edges.as_given(found);
  });
  return sums;
}

/// -> gradients of directions, terms
std::tuple<Tensor, Tensor> backward_cpu(const Tensor& gradient, const Tensor& directions, const Tensor& terms,
                                        const Tensor& centres, std::int64_t n_owned, std::int64_t n_polynomials) {
  check(directions, terms, centres, n_polynomials);
  TORCH_CHECK(gradient.sizes() == terms.sizes() && gradient.scalar_type() == terms.scalar_type(),
              "angle_sums_backward: expected a gradient ", terms.sizes(), " of ", terms.scalar_type(), ", found ",
              gradient.sizes(), " of ", gradient.scalar_type());
  Tensor of_directions, of_terms;
  AT_DISPATCH_FLOATING_TYPES(terms.scalar_type(), "angle_sums_backward", [&] {
    const CpuCall<scalar_t> call(directions, terms, centres, n_owned, n_polynomials);
    const Tensor of_sums = call.edges.in_order(gradient);
    const Tensor to_directions = at::empty_like(call.directions), to_terms = at::empty_like(call.terms);
    const scalar_t* const from = of_sums.const_data_ptr<scalar_t>();
    scalar_t* const directions_to = to_directions.data_ptr<scalar_t>();
    scalar_t* const terms_to = to_terms.data_ptr<scalar_t>();
    call.for_centres([&](std::int64_t begin, std::int64_t end, scalar_t* scratch) {
      call.kernels.backward(call.problem, begin, end, from, directions_to, terms_to, scratch);
    });
    of_directions = call.edges.as_given(to_directions);
    of_terms = call.edges.as_given(to_terms);
  });
  return {of_directions, of_terms};
}

// ---- autograd ------------------------------------------------------------------------------------------------

Tensor forward_autograd(const Tensor& directions, const Tensor& terms, const Tensor& centres, std::int64_t n_owned,
                        std::int64_t n_polynomials) {
  if (!terms.is_cpu()) return reference(directions, terms, centres, n_owned, n_polynomials);
  const auto forward = [&]() -> Recorded {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("mlip::angle_sums", "").typed<decltype(forward_cpu)>();
    return {{op.call(directions, terms, centres, n_owned, n_polynomials)}, {directions, terms, centres}};
  };
  return record({directions, terms}, forward,
                [n_owned, n_polynomials](const auto& gradients, const auto& kept, const auto&) -> std::vector<Tensor> {
                  const LastDerivative only("angle_sums");
                  static const auto op = c10::Dispatcher::singleton()
                                             .findSchemaOrThrow("mlip::angle_sums_backward", "")
                                             .typed<decltype(backward_cpu)>();
                  auto [of_directions, of_terms] =
                      op.call(gradients[0], kept[0], kept[1], kept[2], n_owned, n_polynomials);
                  return {of_directions, of_terms};
                })[0];
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def("angle_sums(Tensor directions, Tensor terms, Tensor centres, int n_owned, int n_polynomials) -> Tensor");
  library.def(
      "angle_sums_backward(Tensor gradient, Tensor directions, Tensor terms, Tensor centres, int n_owned, "
      "int n_polynomials) -> (Tensor, Tensor)");
  library.def(
      "angle_sums_reference(Tensor directions, Tensor terms, Tensor centres, int n_owned, int n_polynomials) -> Tensor",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("angle_sums", mlip::forward_cpu);
  library.impl("angle_sums_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("angle_sums", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("angle_sums", mlip::forward_autograd); }
