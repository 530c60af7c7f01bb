// The operator `mlip::symmetry_functions`: what ANI knows of an atom's surroundings, functions of distances and angles
// that are added up over its neighbours by element and over pairs of neighbours by pair of elements.
//
//   symmetry_functions(edge_vectors, node_types, edge_index, n_owned, n_elements, radial_shifts, angular_shifts,
//                      sections, constants)
//     -> features [n_owned, n_elements n_radial + n_elements (n_elements + 1) / 2 n_angular]
//
//   radial[i][a][r]         = Σ_{neighbours j of i, of element a} exp(-η (d_ij - R_r)²) f(d_ij; d_c) / 4
//   angular[i][a, b][r, s]  = Σ_{pairs j, k of neighbours of i, of elements a and b, both within the angular cutoff}
//                               2 ((1 + cos(θ - θ_s)) / 2)^ζ exp(-η ((d_ij + d_ik) / 2 - R_r)²) f(d_ij) f(d_ik)
//   f(d; d_c)               = (1 + cos(π d / d_c)) / 2
//   cos θ                   = 0.95 times the cosine of the angle between both edges, so that its derivative is finite
//
//   edge_vectors    r_j - r_i, [n_edges, 3] Å, no longer than the radial cutoff
//   node_types      int64 [n_nodes], in [0, n_elements)
//   edge_index      int64 [2, n_edges]: centres in [0, n_owned), neighbours in [0, n_nodes)
//   radial_shifts   float[], R_r of the radial functions, Å
//   angular_shifts  float[], R_r of the angular functions, Å
//   sections        float[], θ_s, radians
//   constants       float[5]: η and d_c of the radial functions; η, ζ and d_c of the angular ones; η in Å⁻², d_c in Å
//
// The radial features of an atom come first, by element, then the angular ones, by pair of elements (0, 0), (0, 1),
// ..., (1, 1), ...; of those, the section changes faster than the shift. J. S. Smith, O. Isayev, A. E. Roitberg, Chem.
// Sci. 2017, 8, 3192; the numbers are those of TorchANI's AEVComputer, which has the factors 1/4, 0.95 and 2 from
// NeuroChem.
//
// The CPU has kernels of its own, for the pass back too, which store nothing of an edge or a pair: all functions are
// evaluated again in the pass back. Other devices compute the same from torch's own operators, which is also the
// reference that the tests use: `mlip::symmetry_functions_reference`.
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "operators/aligned_memory.h"
#include "operators/autograd.h"
#include "operators/edge_pairs.h"
#include "operators/edges_by_centre.h"
#include "operators/instruction_sets.h"
#include "operators/symmetry_functions/symmetry_functions_kernels.h"

namespace mlip {
namespace {

using at::Tensor;

/// The numbers of a call.
struct Functions {
  std::int64_t n_elements;
  std::vector<double> radial_shifts, angular_shifts, sections;
  double radial_eta, radial_cutoff, angular_eta, zeta, angular_cutoff;

  Functions(std::int64_t n_elements_, at::ArrayRef<double> radial_shifts_, at::ArrayRef<double> angular_shifts_,
            at::ArrayRef<double> sections_, at::ArrayRef<double> constants)
      : n_elements(n_elements_),
        radial_shifts(radial_shifts_.vec()),
        angular_shifts(angular_shifts_.vec()),
        sections(sections_.vec()) {
    TORCH_CHECK(constants.size() == 5, "symmetry_functions: expected 5 constants, found ", constants.size());
    radial_eta = constants[0];
    radial_cutoff = constants[1];
    angular_eta = constants[2];
    zeta = constants[3];
    angular_cutoff = constants[4];
  }

  std::int64_t n_radial() const { return static_cast<std::int64_t>(radial_shifts.size()); }
  std::int64_t n_angular() const { return static_cast<std::int64_t>(angular_shifts.size() * sections.size()); }
  std::int64_t n_pairs() const { return n_elements * (n_elements + 1) / 2; }
  std::int64_t n_features() const { return n_elements * n_radial() + n_pairs() * n_angular(); }
};

/// @throws c10::Error for shapes, types and numbers that do not fit
void check(const Tensor& edge_vectors, const Tensor& node_types, const Tensor& edge_index, std::int64_t n_owned,
           const Functions& functions) {
  TORCH_CHECK(edge_index.dim() == 2 && edge_index.size(0) == 2 && edge_index.scalar_type() == at::kLong,
              "symmetry_functions: expected edge_index int64 [2, n_edges], found ", edge_index.scalar_type(), " ",
              edge_index.sizes());
  TORCH_CHECK(edge_vectors.is_floating_point() && edge_vectors.dim() == 2 &&
                  edge_vectors.size(0) == edge_index.size(1) && edge_vectors.size(1) == 3,
              "symmetry_functions: expected floating-point edge_vectors [", edge_index.size(1), ", 3], found ",
              edge_vectors.scalar_type(), " ", edge_vectors.sizes());
  TORCH_CHECK(node_types.dim() == 1 && node_types.scalar_type() == at::kLong && node_types.size(0) >= n_owned,
              "symmetry_functions: expected node_types int64 of ", n_owned, " nodes or more, found ",
              node_types.scalar_type(), " ", node_types.sizes());
  TORCH_CHECK(n_owned >= 0 && functions.n_elements >= 0, "symmetry_functions: n_owned = ", n_owned,
              " and n_elements = ", functions.n_elements, " may not be negative");
  TORCH_CHECK(functions.n_radial() > 0 && functions.n_angular() > 0,
              "symmetry_functions: expected shifts and sections, found ", functions.radial_shifts.size(),
              " radial shifts, ", functions.angular_shifts.size(), " angular shifts and ", functions.sections.size(),
              " sections");
  TORCH_CHECK(functions.angular_cutoff > 0.0 && functions.angular_cutoff <= functions.radial_cutoff,
              "symmetry_functions: the angular cutoff ", functions.angular_cutoff,
              " has to be above zero and no longer than the radial cutoff ", functions.radial_cutoff);
}

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, differentiable, and slow.
Tensor reference(const Tensor& edge_vectors, const Tensor& node_types, const Tensor& edge_index, std::int64_t n_owned,
                 std::int64_t n_elements, at::ArrayRef<double> radial_shifts, at::ArrayRef<double> angular_shifts,
                 at::ArrayRef<double> sections, at::ArrayRef<double> constants) {
  const Functions functions(n_elements, radial_shifts, angular_shifts, sections, constants);
  check(edge_vectors, node_types, edge_index, n_owned, functions);
  const auto tensor = [&](const std::vector<double>& values) {
    return at::tensor(values, at::TensorOptions(at::kDouble)).to(edge_vectors.options());
  };
  const auto cut_off = [](const Tensor& distances, double cutoff) {
    return 0.5 * at::cos(distances * (M_PI / cutoff)) + 0.5;
  };
  const std::int64_t n_pairs = functions.n_pairs();
  Tensor centres = edge_index[0], types = node_types.index_select(0, edge_index[1]);
  Tensor distances = at::linalg_vector_norm(edge_vectors, 2, at::IntArrayRef{1});
  const Tensor of_distance =
      0.25 * at::exp(-functions.radial_eta * (distances.unsqueeze(1) - tensor(functions.radial_shifts)).square()) *
      cut_off(distances, functions.radial_cutoff).unsqueeze(1);
  const Tensor radial = at::zeros({n_owned * n_elements, functions.n_radial()}, edge_vectors.options())
                            .index_add(0, centres * n_elements + types, of_distance);

  const Tensor near = at::nonzero(distances < functions.angular_cutoff).squeeze(1);
  centres = centres.index_select(0, near);
  types = types.index_select(0, near);
  distances = distances.index_select(0, near);
  const Tensor directions = edge_vectors.index_select(0, near) / distances.unsqueeze(1);
  // Of each pair one of both orders.
  auto [first, second] = pairs_of_edges(centres, n_owned);
  const Tensor once = at::nonzero(first < second).squeeze(1);
  first = first.index_select(0, once);
  second = second.index_select(0, once);

  const Tensor types_1 = types.index_select(0, first), types_2 = types.index_select(0, second);
  const Tensor a = at::minimum(types_1, types_2), b = at::maximum(types_1, types_2);
  const Tensor pair = at::floor_divide(a * (2 * n_elements - a - 1), 2) + b;
  const Tensor cosine =
      0.95 * (directions.index_select(0, first) * directions.index_select(0, second)).sum(1, /*keepdim=*/true);
  const Tensor angles = tensor(functions.sections);
  const Tensor deviation = cosine * at::cos(angles) + at::sqrt(1.0 - cosine * cosine) * at::sin(angles);
  const Tensor of_angle = 2.0 * at::pow(0.5 + 0.5 * deviation, functions.zeta);
  const Tensor mean = 0.5 * (distances.index_select(0, first) + distances.index_select(0, second));
  const Tensor cutoffs = cut_off(distances, functions.angular_cutoff);
  const Tensor of_mean =
      at::exp(-functions.angular_eta * (mean.unsqueeze(1) - tensor(functions.angular_shifts)).square()) *
      (cutoffs.index_select(0, first) * cutoffs.index_select(0, second)).unsqueeze(1);
  const Tensor angular = at::zeros({n_owned * n_pairs, functions.n_angular()}, edge_vectors.options())
                             .index_add(0, centres.index_select(0, first) * n_pairs + pair,
                                        (of_mean.unsqueeze(2) * of_angle.unsqueeze(1)).flatten(1));
  return at::cat({radial.reshape({n_owned, n_elements * functions.n_radial()}),
                  angular.reshape({n_owned, n_pairs * functions.n_angular()})},
                 1);
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Contiguous inputs and the kernels' view of them.
template <typename T>
struct CpuCall {
  Tensor edge_vectors, node_types, edge_index;
  std::vector<T> radial_shifts, angular_shifts, cosines, sines;
  EdgesByCentre edges;
  SymmetryFunctionsProblem<T> problem{};

  CpuCall(const Tensor& edge_vectors_, const Tensor& node_types_, const Tensor& edge_index_, std::int64_t n_owned,
          const Functions& functions)
      : edge_vectors(edge_vectors_.contiguous()),
        node_types(node_types_.contiguous()),
        edge_index(edge_index_.contiguous()),
        radial_shifts(functions.radial_shifts.begin(), functions.radial_shifts.end()),
        angular_shifts(functions.angular_shifts.begin(), functions.angular_shifts.end()),
        edges("symmetry_functions", edge_index, n_owned, node_types.size(0)) {
    for (const double section : functions.sections) {
      cosines.push_back(static_cast<T>(std::cos(section)));
      sines.push_back(static_cast<T>(std::sin(section)));
    }
    problem.n_elements = functions.n_elements;
    problem.n_radial = functions.n_radial();
    problem.n_shifts = static_cast<std::int64_t>(angular_shifts.size());
    problem.n_sections = static_cast<std::int64_t>(cosines.size());
    problem.n_angular = functions.n_angular();
    problem.n_features = functions.n_features();
    problem.radial_shifts = radial_shifts.data();
    problem.angular_shifts = angular_shifts.data();
    problem.cosines = cosines.data();
    problem.sines = sines.data();
    problem.radial_eta = static_cast<T>(functions.radial_eta);
    problem.angular_eta = static_cast<T>(functions.angular_eta);
    problem.zeta = static_cast<T>(functions.zeta);
    problem.radial_cutoff = static_cast<T>(functions.radial_cutoff);
    problem.angular_cutoff = static_cast<T>(functions.angular_cutoff);
    problem.first_edge = edges.first.data();
    problem.edge_order = edges.order.empty() ? nullptr : edges.order.data();
    std::int64_t most_edges = 0;
    for (std::int64_t i = 0; i < n_owned; ++i) most_edges = std::max(most_edges, edges.first[i + 1] - edges.first[i]);
    problem.capacity = capacity_for<T>(most_edges, functions.n_elements);
    problem.neighbours = edge_index.const_data_ptr<std::int64_t>() + edge_index.size(1);
    problem.node_types = node_types.const_data_ptr<std::int64_t>();
    problem.vectors = edge_vectors.const_data_ptr<T>();
    bool known = true;
    for (std::int64_t node = 0; node < node_types.size(0); ++node)
      known &= problem.node_types[node] >= 0 && problem.node_types[node] < problem.n_elements;
    TORCH_CHECK_INDEX(known, "symmetry_functions: a node has a type outside [0, ", problem.n_elements, ")");
  }

  static const SymmetryFunctionsKernels<T>& kernels() { return *instruction_set().kernels<T>().symmetry_functions; }

  /// body(first centre, last centre + 1, values and integers of working memory)
  template <typename Body>
  void for_centres(Body&& body) const {
    const std::vector<std::int64_t> bounds = edges.chunks();
    at::parallel_for(0, static_cast<std::int64_t>(bounds.size()) - 1, 1, [&](std::int64_t begin, std::int64_t end) {
      const AlignedMemory<T> scratch(scratch_size(problem));
      std::vector<std::int64_t> indices(scratch_indices(problem));
      body(bounds[begin], bounds[end], scratch.data(), indices.data());
    });
  }
};

Tensor forward_cpu(const Tensor& edge_vectors, const Tensor& node_types, const Tensor& edge_index, std::int64_t n_owned,
                   std::int64_t n_elements, at::ArrayRef<double> radial_shifts, at::ArrayRef<double> angular_shifts,
                   at::ArrayRef<double> sections, at::ArrayRef<double> constants) {
  const Functions functions(n_elements, radial_shifts, angular_shifts, sections, constants);
  check(edge_vectors, node_types, edge_index, n_owned, functions);
  Tensor features = at::empty({n_owned, functions.n_features()}, edge_vectors.options());
  AT_DISPATCH_FLOATING_TYPES(edge_vectors.scalar_type(), "symmetry_functions", [&] {
    const CpuCall<scalar_t> call(edge_vectors, node_types, edge_index, n_owned, functions);
    scalar_t* const to = features.data_ptr<scalar_t>();
    call.for_centres([&](std::int64_t begin, std::int64_t end, scalar_t* scratch, std::int64_t* indices) {
      call.kernels().forward(call.problem, to, begin, end, scratch, indices);
    });
  });
  return features;
}

/// -> gradient of the edge vectors
Tensor backward_cpu(const Tensor& gradient, const Tensor& edge_vectors, const Tensor& node_types,
                    const Tensor& edge_index, std::int64_t n_elements, at::ArrayRef<double> radial_shifts,
                    at::ArrayRef<double> angular_shifts, at::ArrayRef<double> sections,
                    at::ArrayRef<double> constants) {
  const Functions functions(n_elements, radial_shifts, angular_shifts, sections, constants);
  const std::int64_t n_owned = gradient.size(0);
  check(edge_vectors, node_types, edge_index, n_owned, functions);
  TORCH_CHECK(gradient.dim() == 2 && gradient.size(1) == functions.n_features() &&
                  gradient.scalar_type() == edge_vectors.scalar_type(),
              "symmetry_functions_backward: the gradient has the wrong shape or type");
  const Tensor of_features = gradient.contiguous();
  Tensor of_vectors = at::empty(edge_vectors.sizes(), edge_vectors.options());
  AT_DISPATCH_FLOATING_TYPES(edge_vectors.scalar_type(), "symmetry_functions_backward", [&] {
    const CpuCall<scalar_t> call(edge_vectors, node_types, edge_index, n_owned, functions);
    const scalar_t* const from = of_features.const_data_ptr<scalar_t>();
    scalar_t* const to = of_vectors.data_ptr<scalar_t>();
    call.for_centres([&](std::int64_t begin, std::int64_t end, scalar_t* scratch, std::int64_t* indices) {
      call.kernels().backward(call.problem, from, to, begin, end, scratch, indices);
    });
  });
  return of_vectors;
}

// ---- autograd ------------------------------------------------------------------------------------------------

// The count is a SymInt, as in ghost_gather.cpp.
Tensor forward_autograd(const Tensor& edge_vectors, const Tensor& node_types, const Tensor& edge_index,
                        c10::SymInt n_owned, std::int64_t n_elements, at::ArrayRef<double> radial_shifts,
                        at::ArrayRef<double> angular_shifts, at::ArrayRef<double> sections,
                        at::ArrayRef<double> constants) {
  if (!edge_vectors.is_cpu())
    return reference(edge_vectors, node_types, edge_index, n_owned.expect_int(), n_elements, radial_shifts,
                     angular_shifts, sections, constants);
  const auto forward = [&]() -> Recorded {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("mlip::symmetry_functions", "")
                               .typed<decltype(forward_autograd)>();
    return {{op.call(edge_vectors, node_types, edge_index, n_owned, n_elements, radial_shifts, angular_shifts, sections,
                     constants)},
            {edge_vectors, node_types, edge_index}};
  };
  return record({edge_vectors}, forward,
                [n_elements, radial_shifts = radial_shifts.vec(), angular_shifts = angular_shifts.vec(),
                 sections = sections.vec(), constants = constants.vec()](const auto& gradients, const auto& kept,
                                                                         const auto&) -> std::vector<Tensor> {
                  const LastDerivative only("symmetry_functions");
                  static const auto op = c10::Dispatcher::singleton()
                                             .findSchemaOrThrow("mlip::symmetry_functions_backward", "")
                                             .typed<decltype(backward_cpu)>();
                  return {op.call(gradients[0], kept[0], kept[1], kept[2], n_elements, radial_shifts, angular_shifts,
                                  sections, constants)};
                })[0];
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "symmetry_functions(Tensor edge_vectors, Tensor node_types, Tensor edge_index, SymInt n_owned, int n_elements, "
      "float[] radial_shifts, float[] angular_shifts, float[] sections, float[] constants) -> Tensor");
  library.def(
      "symmetry_functions_backward(Tensor gradient, Tensor edge_vectors, Tensor node_types, Tensor edge_index, "
      "int n_elements, float[] radial_shifts, float[] angular_shifts, float[] sections, float[] constants) -> Tensor");
  library.def(
      "symmetry_functions_reference(Tensor edge_vectors, Tensor node_types, Tensor edge_index, int n_owned, "
      "int n_elements, float[] radial_shifts, float[] angular_shifts, float[] sections, float[] constants) -> Tensor",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("symmetry_functions", mlip::forward_cpu);
  library.impl("symmetry_functions_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("symmetry_functions", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("symmetry_functions", mlip::forward_autograd); }
