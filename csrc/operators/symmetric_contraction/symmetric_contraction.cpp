// The operator `mlip::symmetric_contraction`: MACE's product basis, a sparse polynomial for each channel of each atom.
//
//   symmetric_contraction(features [n_atoms, n_components, channels], types int64 [n_atoms], factors, terms, n_outputs,
//                         coefficients) -> [n_atoms, n_outputs, channels]
//
// The formula is in symmetric_contraction_kernels.h.
//
//   factors       int64 [n_monomials, degree]: the components whose product a monomial is; n_components stands for one
//   terms         int64 [n_terms, 2], sorted: output component, monomial
//   coefficients  [n_elements, n_blocks, n_terms, 16]: of channels in blocks of 16, the last one padded
//
// The gradient is that of the features. The CPU has kernels of its own, and so have GPUs. Other devices compute the
// same from torch's operators, which is also the reference that the tests use: `mlip::symmetric_contraction_reference`.
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <vector>

#include "core/native_operator.h"
#include "operators/aligned_memory.h"
#include "operators/autograd.h"
#include "operators/gpu.h"
#include "operators/instruction_sets.h"
#include "operators/new_tensor.h"
#include "operators/symmetric_contraction/symmetric_contraction_kernels.h"
#include "operators/symmetric_contraction/symmetric_contraction_shared.h"

namespace mlip {

using torch::Tensor;

namespace {

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, differentiable, and slow.
Tensor reference(const Tensor& features, const Tensor& types, const Tensor& factors, const Tensor& terms,
                 std::int64_t n_outputs, const Tensor& coefficients) {
  check_contraction(features, types, factors, terms, n_outputs, coefficients);
  const c10::SymInt n_atoms = features.sym_size(0);
  const std::int64_t channels = fixed_size(features, 2);
  const Tensor x = torch::cat({features, at::ones_symint({n_atoms, 1, channels}, features.options())}, 1);
  Tensor monomials = x.index_select(1, factors.select(1, 0));
  for (std::int64_t d = 1; d < factors.size(1); ++d) monomials = monomials * x.index_select(1, factors.select(1, d));
  const Tensor of_atoms =
      coefficients.index_select(0, types).transpose(1, 2).flatten(2).narrow(2, 0, channels);  // [n_atoms, n_terms, u]
  const Tensor products = monomials.index_select(1, terms.select(1, 1)) * of_atoms;
  return at::zeros_symint({n_atoms, n_outputs, channels}, features.options())
      .index_add(1, terms.select(1, 0), products);
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Contiguous inputs, checked, and the kernels' view of them.
template <typename T>
struct CpuCall {
  Tensor features, types, factors, coefficients;
  std::vector<std::int64_t> monomials, first_term;
  SymmetricContractionProblem<T> problem{};

  CpuCall(const Tensor& features_, const Tensor& types_, const Tensor& factors_, const Tensor& terms,
          std::int64_t n_outputs, const Tensor& coefficients_)
      : features(features_.contiguous()),
        types(types_.contiguous()),
        factors(factors_.contiguous()),
        coefficients(coefficients_.contiguous()),
        first_term(n_outputs + 1, 0) {
    check_contraction(features, types, factors, terms, n_outputs, coefficients);
    in_range(types, coefficients.size(0), "element");
    in_range(factors, features.size(1) + 1, "component");
    lay_out_terms(terms.contiguous(), n_outputs);
    problem.features = features.data_ptr<T>();
    problem.types = types.data_ptr<std::int64_t>();
    problem.n_components = features.size(1);
    problem.channels = features.size(2);
    problem.n_blocks = coefficients.size(1);
    problem.factors = factors.data_ptr<std::int64_t>();
    problem.degree = static_cast<int>(factors.size(1));
    problem.n_monomials = factors.size(0);
    problem.monomials = monomials.data();
    problem.first_term = first_term.data();
    problem.n_terms = terms.size(0);
    problem.n_outputs = n_outputs;
    problem.coefficients = coefficients.data_ptr<T>();
  }

  /// The kernels trust every index.
  static void in_range(const Tensor& indices, std::int64_t end, const char* what) {
    const std::int64_t* index = indices.data_ptr<std::int64_t>();
    for (std::int64_t k = 0; k < indices.numel(); ++k)
      TORCH_CHECK_INDEX(index[k] >= 0 && index[k] < end, "symmetric_contraction: ", what, " ", index[k],
                        " is outside [0, ", end, ")");
  }

  void lay_out_terms(const Tensor& terms, std::int64_t n_outputs) {
    const std::int64_t* term = terms.data_ptr<std::int64_t>();
    std::int64_t previous = 0;
    for (std::int64_t t = 0; t < terms.size(0); ++t, term += 2) {
      TORCH_CHECK_INDEX(term[0] >= previous && term[0] < n_outputs && term[1] >= 0 && term[1] < factors.size(0),
                        "symmetric_contraction: term ", t, " is out of order, or has no such output or monomial");
      previous = term[0];
      ++first_term[term[0] + 1];
      monomials.push_back(term[1]);
    }
    for (std::int64_t o = 0; o < n_outputs; ++o) first_term[o + 1] += first_term[o];
  }

  static const SymmetricContractionKernels<T>& kernels() {
    return *instruction_set().kernels<T>().symmetric_contraction;
  }

  /// body(first atom, last atom + 1, scratch)
  template <typename Body>
  void for_atoms(Body&& body) const {
    constexpr std::int64_t fewest_atoms = 8;  // less is not worth waking a thread
    at::parallel_for(0, features.size(0), fewest_atoms, [&](std::int64_t begin, std::int64_t end) {
      const AlignedMemory<T> scratch(scratch_size(problem));
      body(begin, end, scratch.data());
    });
  }
};

Tensor forward_cpu(const Tensor& features, const Tensor& types, const Tensor& factors, const Tensor& terms,
                   std::int64_t n_outputs, const Tensor& coefficients) {
  Tensor outputs;
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "symmetric_contraction", [&] {
    const CpuCall<scalar_t> call(features, types, factors, terms, n_outputs, coefficients);
    outputs = new_tensor({features.size(0), n_outputs, features.size(2)}, features);
    scalar_t* const target = outputs.data_ptr<scalar_t>();
    call.for_atoms([&](std::int64_t begin, std::int64_t end, scalar_t* scratch) {
      call.kernels().forward(call.problem, target, begin, end, scratch);
    });
  });
  return outputs;
}

/// -> gradient of the features
Tensor backward_cpu(const Tensor& gradient, const Tensor& features, const Tensor& types, const Tensor& factors,
                    const Tensor& terms, const Tensor& coefficients) {
  Tensor features_gradient;
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "symmetric_contraction_backward", [&] {
    TORCH_CHECK(gradient.dim() == 3 && gradient.size(0) == features.size(0) && gradient.size(2) == features.size(2) &&
                    gradient.scalar_type() == features.scalar_type(),
                "symmetric_contraction_backward: the gradient has the wrong shape or type");
    const Tensor dense = gradient.contiguous();
    const CpuCall<scalar_t> call(features, types, factors, terms, dense.size(1), coefficients);
    features_gradient = new_tensor(call.features.sizes(), features);
    const scalar_t* const source = dense.data_ptr<scalar_t>();
    scalar_t* const target = features_gradient.data_ptr<scalar_t>();
    call.for_atoms([&](std::int64_t begin, std::int64_t end, scalar_t* scratch) {
      call.kernels().backward(call.problem, source, target, begin, end, scratch);
    });
  });
  return features_gradient;
}

// ---- autograd ------------------------------------------------------------------------------------------------

Tensor forward_autograd(const Tensor& features, const Tensor& types, const Tensor& factors, const Tensor& terms,
                        std::int64_t n_outputs, const Tensor& coefficients) {
  if (!has_own_kernels(features.device())) return reference(features, types, factors, terms, n_outputs, coefficients);
  const auto forward = [&]() -> Recorded {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("mlip::symmetric_contraction", "")
                               .typed<decltype(forward_cpu)>();
    return {{op.call(features, types, factors, terms, n_outputs, coefficients)},
            {features, types, factors, terms, coefficients}};
  };
  return record({features}, forward, [](const auto& gradients, const auto& kept, const auto&) -> std::vector<Tensor> {
    const LastDerivative only("symmetric_contraction");
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("mlip::symmetric_contraction_backward", "")
                               .typed<decltype(backward_cpu)>();
    return {op.call(gradients[0], kept[0], kept[1], kept[2], kept[3], kept[4])};
  })[0];
}

// ---- without autograd ----------------------------------------------------------------------------------------

class NativeSymmetricContraction : public NativeOperator {
 public:
  NativeSymmetricContraction(Tensor factors, Tensor terms, std::int64_t n_values, Tensor coefficients)
      : factors_(std::move(factors)),
        terms_(std::move(terms)),
        n_values_(n_values),
        coefficients_(std::move(coefficients)) {}

  Tensors forward(Tensors inputs, std::int64_t, Kept* kept) const override {
    const auto pass = inputs[0].is_cpu() ? forward_cpu : gpu::symmetric_contraction;
    Tensor outputs = pass(inputs[0], inputs[1], factors_, terms_, n_values_, coefficients_);
    if (kept != nullptr) kept->tensors = std::move(inputs);
    return {std::move(outputs)};
  }

  void backward(const Tensors& gradients, const Kept& kept, const std::vector<bool>&, Tensors& sums) const override {
    const auto pass = kept.tensors[0].is_cpu() ? backward_cpu : gpu::symmetric_contraction_backward;
    add_gradient(sums[0], pass(gradients[0], kept.tensors[0], kept.tensors[1], factors_, terms_, coefficients_));
  }

  std::size_t n_outputs() const override { return 1; }

 private:
  Tensor factors_, terms_;
  std::int64_t n_values_;
  Tensor coefficients_;
};

const RegisterNative native("mlip::symmetric_contraction",
                            [](const std::vector<c10::IValue>& arguments,
                               at::Device device) -> std::unique_ptr<NativeOperator> {
                              if (!has_own_kernels(device)) return nullptr;
                              for (std::size_t k = 0; k < arguments.size(); ++k)
                                if (arguments[k].isNone() != (k < 2)) return nullptr;
                              return std::make_unique<NativeSymmetricContraction>(
                                  arguments[2].toTensor(), arguments[3].toTensor(), arguments[4].toInt(),
                                  arguments[5].toTensor());
                            });

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "symmetric_contraction(Tensor features, Tensor types, Tensor factors, Tensor terms, int n_outputs, "
      "Tensor coefficients) -> Tensor");
  library.def(
      "symmetric_contraction_backward(Tensor gradient, Tensor features, Tensor types, Tensor factors, Tensor terms, "
      "Tensor coefficients) -> Tensor");
  library.def(
      "symmetric_contraction_reference(Tensor features, Tensor types, Tensor factors, Tensor terms, int n_outputs, "
      "Tensor coefficients) -> Tensor",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CPU, library) {
  library.impl("symmetric_contraction", mlip::forward_cpu);
  library.impl("symmetric_contraction_backward", mlip::backward_cpu);
}

TORCH_LIBRARY_IMPL(mlip, CUDA, library) {
  library.impl("symmetric_contraction", mlip::gpu::symmetric_contraction);
  library.impl("symmetric_contraction_backward", mlip::gpu::symmetric_contraction_backward);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) { library.impl("symmetric_contraction", mlip::reference); }

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("symmetric_contraction", mlip::forward_autograd); }
