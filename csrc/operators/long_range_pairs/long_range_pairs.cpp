// The operator `mlip::long_range_pairs`: SO3LR's electrostatics and dispersion of pairs, half of each pair's energy for
// its centre.
//
//   long_range_pairs(charges, polarizabilities, c6, distances, edge_index, n_owned, constants) -> energies [n_owned] eV
//
// of the edges from i to j, r being their distance:
//   energies[i] = Σ_edges ½ ke q_i q_j law(r) + E(a_i, a_j, c_i, c_j, r)
//
//   law(r)      erf(r / width) / r less its value and slope at the cutoff, the slope being switched on
//   E           dispersion of quantum Drude oscillators (doi:10.1021/acs.jctc.3c00797), damped and switched off at the
//               cutoff. pair_terms.py has both formulas in full, and so has the reference here.
//
//   charges           q, [n_nodes] e
//   polarizabilities  a, [n_nodes] a.u., above zero
//   c6                c, [n_nodes] a.u., above zero
//   distances         [n_edges] Å, above zero and up to the cutoff
//   edge_index        int64 [2, n_edges]: centres i in [0, n_owned), neighbours j in [0, n_nodes)
//   constants         float[], in the order of PairConstants (long_range_pairs_kernels.h)
//
// The CPU has kernels of its own, for the pass back too, and stores nothing of a pair but the gradient of its distance.
// Other devices compute the same from torch's own operators, which is also the reference that the tests use:
// `mlip::long_range_pairs_reference`.
#include <torch/script.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "operators/autograd.h"
#include "operators/edges_by_centre.h"
#include "operators/instruction_sets.h"
#include "operators/long_range_pairs/long_range_pairs_kernels.h"
#include "operators/tracing.h"

namespace mlip {
namespace {

using at::Tensor;

/// What a call gives, checked.
struct Inputs {
  Tensor charges, polarizabilities, c6, distances, edge_index;

  Inputs(const Tensor& charges_, const Tensor& polarizabilities_, const Tensor& c6_, const Tensor& distances_,
         const Tensor& edge_index_, at::ArrayRef<double> constants)
      : charges(charges_.contiguous()),
        polarizabilities(polarizabilities_.contiguous()),
        c6(c6_.contiguous()),
        distances(distances_.contiguous()),
        edge_index(edge_index_.contiguous()) {
    TORCH_CHECK(edge_index.dim() == 2 && fixed_size(edge_index, 0) == 2,
                "long_range_pairs: expected edge_index [2, n_edges], found ", edge_index.sizes());
    TORCH_CHECK(static_cast<std::int64_t>(constants.size()) == n_pair_constants, "long_range_pairs: expected ",
                n_pair_constants, " constants, found ", constants.size());
    const auto expect = [&](const char* name, const Tensor& tensor, const c10::SymInt& n) {
      TORCH_CHECK(tensor.dim() == 1 && tensor.sym_size(0) == n && tensor.scalar_type() == charges.scalar_type(),
                  "long_range_pairs: expected ", name, " [", n, "] of ", charges.scalar_type(), ", found ",
                  tensor.sizes(), " of ", tensor.scalar_type());
    };
    const c10::SymInt n_nodes = charges.sym_numel();
    expect("charges", charges, n_nodes);
    expect("polarizabilities", polarizabilities, n_nodes);
    expect("c6", c6, n_nodes);
    expect("distances", distances, edge_index.sym_size(1));
  }
};

template <typename T>
PairConstants<T> as_constants(at::ArrayRef<double> x) {
  const auto at = [&](std::size_t k) { return static_cast<T>(x[k]); };
  return {at(0),  at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), {at(9), at(10), at(11), at(12)},
          at(13), at(14)};
}

// ---- reference -----------------------------------------------------------------------------------------------

/// 1 up to `on`, 0 from `off`, with all derivatives continuous.
Tensor switched(const Tensor& r, double on, double off) {
  const auto bump = [](const Tensor& x) {
    return at::where(x > 0.0, at::exp(-1.0 / x.clamp_min(1e-12)), at::zeros_like(x));
  };
  const Tensor c = (r - on) / (off - on), falling = bump(1.0 - c), rising = bump(c);
  return falling / (falling + rising + 1e-12);
}

/// The same from torch's operators: any device, differentiable, and slow.
Tensor reference(const Tensor& charges, const Tensor& polarizabilities, const Tensor& c6, const Tensor& distances,
                 const Tensor& edge_index, c10::SymInt n_owned, at::ArrayRef<double> constants) {
  const Inputs checked(charges, polarizabilities, c6, distances, edge_index, constants);
  const PairConstants<double> x = as_constants<double>(constants);
  const Tensor &i = edge_index[0], &j = edge_index[1];
  const Tensor rest = 1.0 - switched(distances, x.on, x.cutoff);
  const Tensor law = at::erf(distances / x.width) / distances - x.potential_at_cutoff -
                     rest * x.slope_at_cutoff * (distances - x.cutoff);
  const Tensor coulomb = 0.5 * x.coulomb * charges.index_select(0, i) * charges.index_select(0, j) * law;

  const Tensor a_i = polarizabilities.index_select(0, i), a_j = polarizabilities.index_select(0, j);
  const Tensor c_i = c6.index_select(0, i), c_j = c6.index_select(0, j);
  const Tensor c6_pair = 2.0 * c_i * c_j * a_j * a_i / (a_i.square() * c_j + a_j.square() * c_i);
  const Tensor root = (0.5 * (a_i + a_j)).pow(1.0 / 7.0), radius = x.van_der_waals * root;
  const Tensor width = (x.fit[0] + radius * (x.fit[1] + radius * (x.fit[2] + radius * x.fit[3]))).square();
  const Tensor damping = (x.damping * root).square(), r = (distances / x.bohr).square();
  const Tensor powers = 1.0 / (r.pow(3) + damping.pow(3)) + 10.0 * width / (r.pow(4) + damping.pow(4)) +
                        122.5 * width.square() / (r.pow(5) + damping.pow(5));
  const Tensor dispersion = -0.5 * x.hartree * c6_pair * powers * switched(distances, x.dispersion_on, x.cutoff);
  return at::zeros_symint({std::move(n_owned)}, charges.options()).index_add(0, i, coulomb + dispersion);
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// How many terms of the series of the error function have digits that count, up to x.
std::int64_t terms_of_series(double x, double epsilon) {
  double term = 1.0, sum = 1.0;
  std::int64_t n = 0;
  while (term > epsilon * sum) {
    term *= 2.0 * x * x / static_cast<double>(2 * ++n + 1);
    sum += term;
  }
  return n;
}

/// The kernels' view of the inputs.
template <typename T>
struct CpuCall {
  static constexpr double epsilon = std::numeric_limits<T>::epsilon();
  static constexpr double one = 6.0;      ///< from here the error function is 1 in float64
  static constexpr double margin = 1.05;  ///< beyond the cutoff, for what rounding adds to a distance
  Inputs inputs;
  EdgesByCentre edges;
  std::vector<T> terms;
  PairProblem<T> problem{};
  const LongRangePairsKernels<T>& kernels = *instruction_set().kernels<T>().long_range_pairs;

  CpuCall(Inputs inputs_, std::int64_t n_owned, at::ArrayRef<double> constants)
      : inputs(std::move(inputs_)), edges("long_range_pairs", inputs.edge_index, n_owned, inputs.charges.numel()) {
    TORCH_CHECK(n_owned <= inputs.charges.numel(), "long_range_pairs: ", n_owned, " owned atoms of ",
                inputs.charges.numel());
    problem.constants = as_constants<T>(constants);
    const double furthest = margin * problem.constants.cutoff / problem.constants.width;
    problem.series_end = static_cast<T>(std::min(one, furthest));
    for (std::int64_t k = 1; k <= terms_of_series(problem.series_end, epsilon); ++k)
      terms.push_back(static_cast<T>(2.0 / static_cast<double>(2 * k + 1)));
    problem.n_terms = static_cast<std::int64_t>(terms.size());
    problem.terms = terms.data();
    problem.first_edge = edges.first.data();
    problem.edge_order = edges.order.empty() ? nullptr : edges.order.data();
    problem.neighbours = inputs.edge_index.template const_data_ptr<std::int64_t>() + inputs.edge_index.size(1);
    problem.distances = inputs.distances.template const_data_ptr<T>();
    problem.charges = inputs.charges.template const_data_ptr<T>();
    problem.polarizabilities = inputs.polarizabilities.template const_data_ptr<T>();
    problem.c6 = inputs.c6.template const_data_ptr<T>();
  }
};

Tensor forward_cpu(const Tensor& charges, const Tensor& polarizabilities, const Tensor& c6, const Tensor& distances,
                   const Tensor& edge_index, std::int64_t n_owned, at::ArrayRef<double> constants) {
  Tensor energies = at::empty({n_owned}, charges.options());
  AT_DISPATCH_FLOATING_TYPES(charges.scalar_type(), "long_range_pairs", [&] {
    const CpuCall<scalar_t> call({charges, polarizabilities, c6, distances, edge_index, constants}, n_owned, constants);
    scalar_t* const to = energies.data_ptr<scalar_t>();
    for_chunks(call.edges.chunks(), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      call.kernels.forward(call.problem, to, begin, end);
    });
  });
  return energies;
}

/// -> gradients of charges, polarizabilities, c6, distances
std::tuple<Tensor, Tensor, Tensor, Tensor> backward_cpu(const Tensor& gradient, const Tensor& charges,
                                                        const Tensor& polarizabilities, const Tensor& c6,
                                                        const Tensor& distances, const Tensor& edge_index,
                                                        at::ArrayRef<double> constants) {
  Tensor of_distances = at::empty(distances.sizes(), distances.options()), of_nodes;
  AT_DISPATCH_FLOATING_TYPES(charges.scalar_type(), "long_range_pairs_backward", [&] {
    TORCH_CHECK(gradient.dim() == 1 && gradient.scalar_type() == charges.scalar_type(),
                "long_range_pairs_backward: a gradient has the wrong shape or type");
    const CpuCall<scalar_t> call({charges, polarizabilities, c6, distances, edge_index, constants}, gradient.size(0),
                                 constants);
    const Tensor of_energies = gradient.contiguous();
    const std::vector<std::int64_t> bounds = call.edges.chunks();
    const std::int64_t n_nodes = charges.numel(), n_chunks = static_cast<std::int64_t>(bounds.size()) - 1;
    // Edges of several chunks may have one neighbour.
    const Tensor by_chunk = at::zeros({n_chunks, 3, n_nodes}, charges.options());
    for_chunks(bounds, [&](std::int64_t chunk, std::int64_t begin, std::int64_t end) {
      scalar_t* const nodes = by_chunk.data_ptr<scalar_t>() + chunk * 3 * n_nodes;
      const PairGradients<scalar_t> gradients{of_energies.const_data_ptr<scalar_t>(), nodes, nodes + n_nodes,
                                              nodes + 2 * n_nodes, of_distances.data_ptr<scalar_t>()};
      call.kernels.backward(call.problem, gradients, begin, end);
    });
    of_nodes = by_chunk[0];
    for (std::int64_t chunk = 1; chunk < n_chunks; ++chunk) of_nodes.add_(by_chunk[chunk]);
  });
  return {of_nodes[0], of_nodes[1], of_nodes[2], of_distances};
}

// ---- autograd ------------------------------------------------------------------------------------------------

// The count is a SymInt, as in ghost_gather.cpp.
Tensor forward_autograd(const Tensor& charges, const Tensor& polarizabilities, const Tensor& c6,
                        const Tensor& distances, const Tensor& edge_index, c10::SymInt n_owned,
                        at::ArrayRef<double> constants) {
  if (!charges.is_cpu())
    return reference(charges, polarizabilities, c6, distances, edge_index, std::move(n_owned), constants);
  const auto forward = [&]() -> Recorded {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("mlip::long_range_pairs", "")
                               .typed<decltype(forward_autograd)>();
    return {{op.call(charges, polarizabilities, c6, distances, edge_index, n_owned, constants)},
            {charges, polarizabilities, c6, distances, edge_index}};
  };
  return record(
      {charges, polarizabilities, c6, distances}, forward,
      [constants = constants.vec()](const auto& gradients, const auto& kept, const auto&) -> std::vector<Tensor> {
        const LastDerivative only("long_range_pairs");
        static const auto op = c10::Dispatcher::singleton()
                                   .findSchemaOrThrow("mlip::long_range_pairs_backward", "")
                                   .typed<decltype(backward_cpu)>();
        const auto [of_charges, of_polarizabilities, of_c6, of_distances] =
            op.call(gradients[0], kept[0], kept[1], kept[2], kept[3], kept[4], constants);
        return {of_charges, of_polarizabilities, of_c6, of_distances};
      })[0];
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "long_range_pairs(Tensor charges, Tensor polarizabilities, Tensor c6, Tensor distances, Tensor edge_index, "
      "SymInt n_owned, float[] constants) -> Tensor");
  library.def(
      "long_range_pairs_backward(Tensor gradient, Tensor charges, Tensor polarizabilities, Tensor c6, "
      "Tensor distances, Tensor edge_index, float[] constants) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "long_range_pairs_reference(Tensor charges, Tensor polarizabilities, Tensor c6, Tensor distances, "
      "Tensor edge_index, SymInt n_owned, float[] constants) -> Tensor",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("long_range_pairs", mlip::forward_cpu);
  library.impl("long_range_pairs_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("long_range_pairs", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("long_range_pairs", mlip::forward_autograd); }
