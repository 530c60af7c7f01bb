// The operator `mlip::token_attention`: PET's attention, in which the tokens of one atom attend to each other.
//
//   token_attention(projected, log_weights, centres, n_heads, scale) -> attended [n_tokens, n_heads * width]
//
// An atom has a token of its own and one for each of its edges. Of an atom, for its tokens s and t and each head:
//   p[s][t]     = exp(scale q[s] · k[t] + w[t]) / Σ_u exp(scale q[s] · k[u] + w[u])     over the atom's tokens u
//   attended[s] = Σ_t p[s][t] v[t]
//
//   projected    queries q, keys k and values v of all heads [n_tokens, 3 * n_heads * width]: a row for each atom, then
//                a row for each edge
//   log_weights  w of edges [n_edges]; that of an atom is 0
//   centres      of edges, int64 [n_edges] in [0, n_atoms), ascending
//
// The CPU takes one atom at a time through all steps and stores nothing but the results: the pass back makes p again.
// Other devices compute the same from torch's own operators on a table that is padded to the atom with most edges,
// which is also the reference that the tests use: `mlip::token_attention_reference`.
#include <torch/script.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "operators/autograd.h"
#include "operators/edges_by_centre.h"
#include "operators/instruction_sets.h"
#include "operators/token_attention/token_attention_kernels.h"
#include "operators/tracing.h"

namespace mlip {
namespace {

using at::Tensor;

/// The sizes of a call, checked against the tensors.
struct Plan {
  c10::SymInt n_atoms, n_edges;
  std::int64_t n_heads, width;

  Plan(const Tensor& projected, const Tensor& log_weights, const Tensor& centres, std::int64_t n_heads_)
      : n_heads(n_heads_) {
    TORCH_CHECK(projected.dim() == 2 && log_weights.dim() == 1,
                "token_attention: expected projected [n_tokens, channels] and log_weights [n_edges], found ",
                projected.sizes(), " and ", log_weights.sizes());
    const std::int64_t channels = fixed_size(projected, 1);
    TORCH_CHECK(n_heads > 0 && channels % (3 * n_heads) == 0, "token_attention: ", channels,
                " channels are not queries, keys and values of ", n_heads, " equal heads");
    width = channels / (3 * n_heads);
    n_edges = log_weights.sym_size(0);
    n_atoms = projected.sym_size(0) - n_edges;
    TORCH_CHECK(n_atoms >= 0, "token_attention: ", projected.sym_size(0), " tokens are fewer than ", n_edges, " edges");
    TORCH_CHECK(centres.sym_sizes() == log_weights.sym_sizes() && centres.scalar_type() == at::kLong,
                "token_attention: expected centres [", n_edges, "] of Long, found ", centres.sym_sizes(), " of ",
                centres.scalar_type());
    TORCH_CHECK(log_weights.scalar_type() == projected.scalar_type(), "token_attention: expected log_weights of ",
                projected.scalar_type(), ", found ", log_weights.scalar_type());
  }
};

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, differentiable, and all atoms at once.
Tensor reference(const Tensor& projected, const Tensor& log_weights, const Tensor& centres, std::int64_t n_heads,
                 double scale) {
  constexpr double nothing = -1e30;  // logarithm of the weight of a token that is not there
  const Plan plan(projected, log_weights, centres, n_heads);
  const std::int64_t n_atoms = plan.n_atoms.expect_int(), n_edges = plan.n_edges.expect_int(), width = plan.width;
  const Tensor counts = at::bincount(centres, {}, n_atoms);
  const std::int64_t n_places = 1 + (n_edges > 0 ? counts.max().item<std::int64_t>() : 0);
  const Tensor place_in_atom =
      at::arange(n_edges, centres.options()) - (counts.cumsum(0) - counts).index_select(0, centres);
  const Tensor atoms = at::arange(n_atoms, centres.options()) * n_places;
  const Tensor places = at::cat({atoms, atoms.index_select(0, centres) + 1 + place_in_atom});

  const Tensor weights = at::full({n_atoms * n_places}, nothing, log_weights.options())
                             .index_copy(0, places, at::cat({at::zeros({n_atoms}, log_weights.options()), log_weights}))
                             .view({n_atoms, 1, 1, n_places});
  const Tensor table = at::zeros({n_atoms * n_places, projected.size(1)}, projected.options())
                           .index_copy(0, places, projected)
                           .view({n_atoms, n_places, 3, n_heads, width})
                           .permute({2, 0, 3, 1, 4});
  const Tensor probabilities = at::softmax(at::matmul(table[0], table[1].transpose(2, 3)) * scale + weights, 3);
  return at::matmul(probabilities, table[2])
      .transpose(1, 2)
      .reshape({n_atoms * n_places, n_heads * width})
      .index_select(0, places);
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Contiguous inputs and the kernels' view of them.
template <typename T>
struct CpuCall {
  Plan plan;
  Tensor projected, log_weights, centres;
  EdgesByCentre edges;
  TokenAttentionProblem<T> problem{};
  const TokenAttentionKernels<T>& kernels = *instruction_set().kernels<T>().token_attention;

  CpuCall(const Tensor& projected_, const Tensor& log_weights_, const Tensor& centres_, std::int64_t n_heads,
          double scale)
      : plan(projected_, log_weights_, centres_, n_heads),
        projected(projected_.contiguous()),
        log_weights(log_weights_.contiguous()),
        centres(centres_.contiguous()),
        edges("token_attention", centres.const_data_ptr<std::int64_t>(), centres.numel(), plan.n_atoms.expect_int()) {
    TORCH_CHECK(edges.order.empty(), "token_attention: expected edges in the order of their centres");
    problem.n_atoms = plan.n_atoms.expect_int();
    problem.n_heads = plan.n_heads;
    problem.width = plan.width;
    problem.scale = static_cast<T>(scale);
    problem.first = edges.first.data();
    problem.projected = projected.template const_data_ptr<T>();
    problem.log_weights = log_weights.template const_data_ptr<T>();
  }

  /// body(first atom, last atom + 1, working memory) for all atoms, by several threads.
  template <typename Body>
  void for_atoms(Body&& body) const {
    std::int64_t most_tokens = 1;
    for (std::int64_t i = 0; i < problem.n_atoms; ++i)
      most_tokens = std::max(most_tokens, 1 + edges.first[i + 1] - edges.first[i]);
    for_chunks(edges.chunks(), [&](std::int64_t, std::int64_t begin, std::int64_t end) {
      const at::AutoDispatchBelowADInplaceOrView below_autograd;  // of this thread
      const Tensor scratch = at::empty({scratch_size(problem, most_tokens)}, projected.options());
      body(begin, end, scratch.template data_ptr<T>());
    });
  }
};

Tensor forward_cpu(const Tensor& projected, const Tensor& log_weights, const Tensor& centres, std::int64_t n_heads,
                   double scale) {
  Tensor attended;
  AT_DISPATCH_FLOATING_TYPES(projected.scalar_type(), "token_attention", [&] {
    const CpuCall<scalar_t> call(projected, log_weights, centres, n_heads, scale);
    attended = at::empty({projected.size(0), call.plan.n_heads * call.plan.width}, projected.options());
    scalar_t* const to = attended.data_ptr<scalar_t>();
    call.for_atoms([&](std::int64_t begin, std::int64_t end, scalar_t* scratch) {
      call.kernels.attend(call.problem, begin, end, to, scratch);
    });
  });
  return attended;
}

/// -> gradients of projected and log_weights
std::tuple<Tensor, Tensor> backward_cpu(const Tensor& gradient, const Tensor& projected, const Tensor& log_weights,
                                        const Tensor& centres, std::int64_t n_heads, double scale) {
  Tensor to_projected, to_log_weights;
  AT_DISPATCH_FLOATING_TYPES(projected.scalar_type(), "token_attention_backward", [&] {
    const CpuCall<scalar_t> call(projected, log_weights, centres, n_heads, scale);
    TORCH_CHECK(gradient.sizes() == at::IntArrayRef({projected.size(0), call.plan.n_heads * call.plan.width}) &&
                    gradient.scalar_type() == projected.scalar_type(),
                "token_attention_backward: the gradient ", gradient.sizes(), " of ", gradient.scalar_type(),
                " does not fit projected ", projected.sizes(), " of ", projected.scalar_type());
    const Tensor of_attended = gradient.contiguous();
    to_projected = at::empty(projected.sizes(), projected.options());
    to_log_weights = at::empty(log_weights.sizes(), log_weights.options());
    const scalar_t* const from = of_attended.const_data_ptr<scalar_t>();
    scalar_t* const of_projected = to_projected.data_ptr<scalar_t>();
    scalar_t* const of_log_weights = to_log_weights.data_ptr<scalar_t>();
    call.for_atoms([&](std::int64_t begin, std::int64_t end, scalar_t* scratch) {
      call.kernels.attend_backward(call.problem, begin, end, from, of_projected, of_log_weights, scratch);
    });
  });
  return {to_projected, to_log_weights};
}

// ---- autograd ------------------------------------------------------------------------------------------------

Tensor forward_autograd(const Tensor& projected, const Tensor& log_weights, const Tensor& centres, std::int64_t n_heads,
                        double scale) {
  if (!projected.is_cpu()) return reference(projected, log_weights, centres, n_heads, scale);
  const auto forward = [&]() -> Recorded {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("mlip::token_attention", "").typed<decltype(forward_cpu)>();
    return {{op.call(projected, log_weights, centres, n_heads, scale)}, {projected, log_weights, centres}};
  };
  return record({projected, log_weights}, forward,
                [n_heads, scale](const auto& gradients, const auto& kept, const auto&) -> std::vector<Tensor> {
                  const LastDerivative only("token_attention");
                  static const auto op = c10::Dispatcher::singleton()
                                             .findSchemaOrThrow("mlip::token_attention_backward", "")
                                             .typed<decltype(backward_cpu)>();
                  const auto [of_projected, of_log_weights] =
                      op.call(gradients[0], kept[0], kept[1], kept[2], n_heads, scale);
                  return {of_projected, of_log_weights};
                })[0];
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "token_attention(Tensor projected, Tensor log_weights, Tensor centres, int n_heads, float scale) -> Tensor");
  library.def(
      "token_attention_backward(Tensor gradient, Tensor projected, Tensor log_weights, Tensor centres, "
      "int n_heads, float scale) -> (Tensor, Tensor)");
  library.def(
      "token_attention_reference(Tensor projected, Tensor log_weights, Tensor centres, int n_heads, float scale) "
      "-> Tensor",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("token_attention", mlip::forward_cpu);
  library.impl("token_attention_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("token_attention", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("token_attention", mlip::forward_autograd); }
