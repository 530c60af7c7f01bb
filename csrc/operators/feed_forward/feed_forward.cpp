// The operator `mlip::feed_forward`: a transformer's feed-forward layer of rows of features, with the norm before and
// the sum after it.
//
//   feed_forward(rows, weights, norm, epsilon, activation, add, keep) -> result [n, n_outputs], kept
//
// of a row x:
//   z      = x / √(mean x² + epsilon)                                for the norm "root_mean_square"
//            (x - mean x) / √(variance of x + epsilon)               for "layer"; x itself for "none"
//   h      = activation(z weights[0] + weights[1])                   "silu", or "glu": values times sigmoid of gates
//   result = h weights[2] + weights[3], and + x where `add` says so
// With two weights alone, z weights[0] + weights[1] is the result.
//
//   rows     x, [n, n_inputs]
//   weights  matrix [n_inputs, n_hidden], for glu [n_inputs, 2 n_hidden], its bias; matrix [n_hidden, n_outputs], its
//            bias: constants without a gradient. What a norm multiplies or adds for each channel belongs to the first
//            two
//   keep     whether to return what the pass back needs, the slopes of the activation, which is empty otherwise
//
// The CPU takes some rows at a time through all steps. Other devices compute the same from torch's own operators, which
// is also the reference that the tests use: `mlip::feed_forward_reference`.
#include <torch/script.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "operators/autograd.h"
#include "operators/edge_blocks.h"
#include "operators/feed_forward/feed_forward_kernels.h"
#include "operators/instruction_sets.h"
#include "operators/packed_matrix.h"
#include "operators/tracing.h"

namespace mlip {
namespace {

using at::Tensor;

/// What `weights` holds, by its place.
constexpr int first_matrix = 0, first_bias = 1, second_matrix = 2, second_bias = 3;

/// How a call is done, beside its tensors.
struct Form {
  c10::string_view norm;
  double epsilon;
  c10::string_view activation;
  bool add;
};

/// The sizes of a call, checked against the tensors.
struct Plan {
  Norm norm;
  Activation activation;
  bool two_layers, add;
  std::int64_t n_inputs, n_sums, n_hidden, n_outputs;

  Plan(const Tensor& rows, at::TensorList weights, const Form& form) : add(form.add) {
    TORCH_CHECK(rows.dim() == 2, "feed_forward: expected rows [n, n_inputs], found ", rows.sizes());
    TORCH_CHECK(weights.size() == 2 || weights.size() == 4, "feed_forward: expected 2 or 4 weights, found ",
                weights.size());
    TORCH_CHECK(form.norm == "none" || form.norm == "root_mean_square" || form.norm == "layer",
                "feed_forward: the norm is '", form.norm, "', expected none, root_mean_square or layer");
    TORCH_CHECK(form.activation == "silu" || form.activation == "glu", "feed_forward: the activation is '",
                form.activation, "', expected silu or glu");
    norm = form.norm == "none" ? Norm::none : form.norm == "layer" ? Norm::layer : Norm::root_mean_square;
    activation = form.activation == "glu" ? Activation::glu : Activation::silu;
    two_layers = weights.size() == 4;
    n_inputs = fixed_size(rows, 1);
    n_sums = weights[first_bias].numel();
    n_hidden = activation == Activation::glu ? n_sums / 2 : n_sums;
    n_outputs = two_layers ? weights[second_bias].numel() : n_sums;
    const auto expect = [&](int place, at::IntArrayRef sizes) {
      TORCH_CHECK(weights[place].sizes() == sizes && weights[place].scalar_type() == rows.scalar_type(),
                  "feed_forward: expected weights[", place, "] ", sizes, " of ", rows.scalar_type(), ", found ",
                  weights[place].sizes(), " of ", weights[place].scalar_type());
    };
    expect(first_matrix, {n_inputs, n_sums});
    expect(first_bias, {n_sums});
    if (two_layers) {
      TORCH_CHECK(activation == Activation::silu || n_sums % 2 == 0, "feed_forward: glu takes values and gates, found ",
                  n_sums, " sums");
      expect(second_matrix, {n_hidden, n_outputs});
      expect(second_bias, {n_outputs});
    }
    TORCH_CHECK(!add || n_outputs == n_inputs, "feed_forward: ", n_outputs, " outputs are added to ", n_inputs,
                " inputs");
  }

  std::int64_t n_kept() const { return two_layers ? n_sums : 0; }
};

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, differentiable, and all rows at once.
Tensor reference(const Tensor& rows, at::TensorList weights, c10::string_view norm, double epsilon,
                 c10::string_view activation, bool add) {
  const Plan plan(rows, weights, {norm, epsilon, activation, add});
  Tensor x = plan.norm == Norm::layer ? rows - rows.mean(1, true) : rows;
  if (plan.norm != Norm::none) x = x * (x.square().mean(1, true) + epsilon).rsqrt();
  Tensor result = at::addmm(weights[first_bias], x, weights[first_matrix]);
  if (plan.two_layers) {
    const Tensor hidden = plan.activation == Activation::glu ? at::glu(result, 1) : at::silu(result);
    result = at::addmm(weights[second_bias], hidden, weights[second_matrix]);
  }
  return plan.add ? rows + result : result;
}

/// Autograd keeps what the pass back of torch's operators needs.
std::tuple<Tensor, Tensor> reference_and_nothing(const Tensor& rows, at::TensorList weights, c10::string_view norm,
                                                 double epsilon, c10::string_view activation, bool add, bool) {
  return {reference(rows, weights, norm, epsilon, activation, add), at::empty({0}, rows.options())};
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Contiguous inputs, and matrices packed for one direction.
template <typename T>
struct CpuCall {
  Plan plan;
  T epsilon;
  Tensor rows;
  std::vector<Tensor> weights;
  PackedMatrix<T> first, second;  ///< or their transposes for the pass back
  const FeedForwardKernels<T>& kernels = *instruction_set().kernels<T>().feed_forward;

  CpuCall(const Tensor& rows_, at::TensorList weights_, const Form& form, bool back)
      : plan(rows_, weights_, form),
        epsilon(static_cast<T>(form.epsilon)),
        rows(rows_.contiguous()),
        weights(contiguous(weights_)),
        first(back ? weights[first_matrix].t() : weights[first_matrix]) {
    if (plan.two_layers) second = PackedMatrix<T>(back ? weights[second_matrix].t() : weights[second_matrix]);
  }

  const T* bias(int place) const { return weights[place].template const_data_ptr<T>(); }
};

/// The steps of one block of rows, and the memory of what they make.
template <typename T>
class Block {
 public:
  explicit Block(const CpuCall<T>& call)
      : call_(call),
        normed_(make(call.plan.norm == Norm::none ? 0 : call.plan.n_inputs)),
        inverse_(make(1)),
        sums_(make(call.plan.two_layers ? call.plan.n_sums : 0)),
        hidden_(make(call.plan.two_layers ? call.plan.n_hidden : 0)) {}

  /// Rows [begin, end), at most block_size.
  void take(std::int64_t begin, std::int64_t end) {
    begin_ = begin;
    n_ = end - begin;
  }

  /// Writes the results of these rows, and their slopes unless `kept` is empty.
  void forward(const Tensor& result, const Tensor& kept) {
    const Plan& plan = call_.plan;
    const T* const x = row(call_.rows);
    T* const to = row(result);
    const T* const bias = call_.bias(plan.two_layers ? second_bias : first_bias);
    for (std::int64_t i = 0; i < n_; ++i)
      for (std::int64_t u = 0; u < plan.n_outputs; ++u)
        to[i * plan.n_outputs + u] = plan.add ? bias[u] + x[i * plan.n_inputs + u] : bias[u];
    const T* const normed = normalise();
    if (!plan.two_layers) return call_.first.multiply(n_, normed, to, true);
    call_.first.multiply(n_, normed, data(sums_));
    call_.kernels.activate(plan.activation, n_, plan.n_hidden, data(sums_), call_.bias(first_bias), data(hidden_),
                           kept.numel() > 0 ? row(kept) : nullptr);
    call_.second.multiply(n_, data(hidden_), to, true);
  }

  /// Writes the gradients of these rows.
  void back(const Tensor& kept, const Tensor& of_result, const Tensor& to_rows) {
    const Plan& plan = call_.plan;
    const T* const gradient = row(of_result);
    const T* of_sums = gradient;
    T* const to = row(to_rows);
    if (plan.two_layers) {
      call_.second.multiply(n_, gradient, data(hidden_));
      call_.kernels.activate_backward(plan.activation, n_, plan.n_hidden, row(kept), data(hidden_), data(sums_));
      of_sums = data(sums_);
    }
    const T* const normed = normalise();
    call_.first.multiply(n_, of_sums, to);
    if (plan.norm != Norm::none)
      call_.kernels.normalise_backward(plan.norm, n_, plan.n_inputs, normed, data(inverse_), to);
    if (plan.add)
      for (std::int64_t k = 0; k < n_ * plan.n_inputs; ++k) to[k] += gradient[k];
  }

 private:
  const T* normalise() {
    if (call_.plan.norm == Norm::none) return row(call_.rows);
    call_.kernels.normalise(call_.plan.norm, call_.epsilon, n_, call_.plan.n_inputs, row(call_.rows), data(normed_),
                            data(inverse_));
    return data(normed_);
  }

  Tensor make(std::int64_t width) const { return at::empty({block_size, width}, call_.rows.options()); }
  static T* data(const Tensor& tensor) { return tensor.template data_ptr<T>(); }
  /// Of the first row.
  T* row(const Tensor& tensor) const { return data(tensor) + begin_ * tensor.size(1); }

  const CpuCall<T>& call_;
  std::int64_t begin_ = 0, n_ = 0;
  Tensor normed_, inverse_, sums_, hidden_;
};

/// body(a block of rows) for all rows, by several threads.
template <typename T, typename Body>
void for_blocks(const CpuCall<T>& call, Body&& body) {
  at::parallel_for(0, call.rows.size(0), block_size, [&](std::int64_t begin, std::int64_t end) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;  // of this thread
    Block<T> block(call);
    for (; begin < end; begin += block_size) {
      block.take(begin, std::min(begin + block_size, end));
      body(block);
    }
  });
}

std::tuple<Tensor, Tensor> forward_cpu(const Tensor& rows, at::TensorList weights, c10::string_view norm,
                                       double epsilon, c10::string_view activation, bool add, bool keep) {
  Tensor result, kept;
  AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "feed_forward", [&] {
    const CpuCall<scalar_t> call(rows, weights, {norm, epsilon, activation, add}, false);
    result = at::empty({rows.size(0), call.plan.n_outputs}, rows.options());
    kept = at::empty({keep ? rows.size(0) : 0, call.plan.n_kept()}, rows.options());
    for_blocks(call, [&](Block<scalar_t>& block) { block.forward(result, kept); });
  });
  return {result, kept};
}

Tensor backward_cpu(const Tensor& gradient, const Tensor& kept, const Tensor& rows, at::TensorList weights,
                    c10::string_view norm, double epsilon, c10::string_view activation, bool add) {
  Tensor to_rows;
  AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "feed_forward_backward", [&] {
    const CpuCall<scalar_t> call(rows, weights, {norm, epsilon, activation, add}, true);
    TORCH_CHECK(gradient.sizes() == at::IntArrayRef({rows.size(0), call.plan.n_outputs}) &&
                    gradient.scalar_type() == rows.scalar_type(),
                "feed_forward_backward: the gradient ", gradient.sizes(), " of ", gradient.scalar_type(),
                " does not fit results [", rows.size(0), ", ", call.plan.n_outputs, "] of ", rows.scalar_type());
    TORCH_CHECK(kept.sizes() == at::IntArrayRef({rows.size(0), call.plan.n_kept()}) && kept.is_contiguous() &&
                    kept.scalar_type() == rows.scalar_type(),
                "feed_forward_backward: nothing was kept for it");
    const Tensor of_result = gradient.contiguous();
    to_rows = at::empty(rows.sizes(), rows.options());
    for_blocks(call, [&](Block<scalar_t>& block) { block.back(kept, of_result, to_rows); });
  });
  return to_rows;
}

// ---- autograd ------------------------------------------------------------------------------------------------

const auto& forward_operator() {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mlip::feed_forward", "").typed<decltype(forward_cpu)>();
  return op;
}

std::tuple<Tensor, Tensor> forward_autograd(const Tensor& rows, at::TensorList weights, c10::string_view norm,
                                            double epsilon, c10::string_view activation, bool add, bool keep) {
  if (!rows.is_cpu()) return reference_and_nothing(rows, weights, norm, epsilon, activation, add, keep);
  const auto forward = [&]() -> Recorded {
    const auto [result, kept] = forward_operator().call(rows, weights, norm, epsilon, activation, add, true);
    return {{result}, {kept, rows}};
  };
  if (needs_gradient({rows}))
    return {record({rows}, forward,
                   [weights = weights.vec(), norm = std::string(norm), epsilon, activation = std::string(activation),
                    add](const auto& gradients, const auto& kept, const auto&) -> std::vector<Tensor> {
                     const LastDerivative only("feed_forward");
                     static const auto op = c10::Dispatcher::singleton()
                                                .findSchemaOrThrow("mlip::feed_forward_backward", "")
                                                .typed<decltype(backward_cpu)>();
                     return {op.call(gradients[0], kept[0], kept[1], weights, norm, epsilon, activation, add)};
                   })[0],
            at::empty({0}, rows.options())};
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return forward_operator().call(rows, weights, norm, epsilon, activation, add, keep);
}

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "feed_forward(Tensor rows, Tensor[] weights, str norm, float epsilon, str activation, bool add, bool keep) "
      "-> (Tensor, Tensor)");
  library.def(
      "feed_forward_backward(Tensor gradient, Tensor kept, Tensor rows, Tensor[] weights, str norm, float epsilon, "
      "str activation, bool add) -> Tensor");
  library.def(
      "feed_forward_reference(Tensor rows, Tensor[] weights, str norm, float epsilon, str activation, bool add) "
      "-> Tensor",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("feed_forward", mlip::forward_cpu);
  library.impl("feed_forward_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) {
  library.impl("feed_forward", mlip::reference_and_nothing);
}

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("feed_forward", mlip::forward_autograd); }
