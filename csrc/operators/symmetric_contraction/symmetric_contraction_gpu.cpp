// The host's side of symmetric_contraction.cu.
#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <mutex>
#include <string>
#include <vector>

#include "gpu/runtime.h"
#include "operators/gpu.h"
#include "operators/symmetric_contraction/symmetric_contraction_arguments.h"
#include "operators/symmetric_contraction/symmetric_contraction_kernels.h"
#include "operators/symmetric_contraction/symmetric_contraction_shared.h"

namespace mlip::gpu {
namespace {

using at::Tensor;

constexpr int threads_per_block = 128;

void check_indices(const Tensor& indices, std::int64_t end, const char* what) {
  if (indices.numel() == 0) return;
  const std::int64_t least = indices.min().item<std::int64_t>(), most = indices.max().item<std::int64_t>();
  TORCH_CHECK_INDEX(least >= 0 && most < end, "symmetric_contraction: ", what, " ", least < 0 ? least : most,
                    " is outside [0, ", end, ")");
}

/// [n_terms, 1 + degree] as the kernels read them, on the device.
Tensor unpacked(const Tensor& factors, const Tensor& terms, std::int64_t n_components, std::int64_t n_outputs) {
  const Tensor outputs = terms.select(1, 0), monomials = terms.select(1, 1);
  check_indices(factors, n_components + 1, "component");
  check_indices(outputs, n_outputs, "output");
  check_indices(monomials, factors.size(0), "monomial");
  TORCH_CHECK_INDEX(terms.size(0) < 2 || (outputs.diff() >= 0).all().item<bool>(),
                    "symmetric_contraction: terms are out of order");
  return at::cat({outputs.unsqueeze(1), factors.index_select(0, monomials)}, 1).to(at::kInt).contiguous();
}

/// The unpacked terms of each contraction, known by the memory of its packed ones until that is given back: they are
/// checked and written once.
Tensor terms_of(const Tensor& factors, const Tensor& terms, std::int64_t n_components, std::int64_t n_outputs) {
  struct Known {
    c10::weak_intrusive_ptr<c10::StorageImpl> factors, terms;
    std::int64_t n_components, n_outputs;
    Tensor unpacked;
  };
  static std::mutex mutex;
  static std::vector<Known> all;
  const auto is = [](const auto& weak, const Tensor& tensor) {
    return weak._unsafe_get_target() == tensor.storage().unsafeGetStorageImpl();
  };
  const std::lock_guard<std::mutex> lock(mutex);
  std::erase_if(all, [](const Known& known) { return known.factors.expired() || known.terms.expired(); });
  for (const Known& known : all)
    if (is(known.factors, factors) && is(known.terms, terms) && known.n_components == n_components &&
        known.n_outputs == n_outputs)
      return known.unpacked;
  all.push_back({factors.storage().getWeakStorageImpl(), terms.storage().getWeakStorageImpl(), n_components, n_outputs,
                 unpacked(factors, terms, n_components, n_outputs)});
  return all.back().unpacked;
}

/// Contiguous inputs, checked, and what both kernels are passed.
struct Call {
  Tensor features, types, coefficients, terms;
  std::int64_t degree;
  SymmetricContractionArguments arguments{};

  Call(const Tensor& features_, const Tensor& types_, const Tensor& factors, const Tensor& packed_terms,
       std::int64_t n_outputs, const Tensor& coefficients_)
      : features(features_.contiguous()),
        types(types_.contiguous()),
        coefficients(coefficients_.contiguous()),
        degree(factors.size(1)) {
    check_contraction(features, types, factors, packed_terms, n_outputs, coefficients);
    terms = terms_of(factors, packed_terms, features.size(1), n_outputs);
    arguments.n_atoms = features.size(0);
    arguments.n_components = static_cast<int>(features.size(1));
    arguments.channels = static_cast<int>(features.size(2));
    arguments.n_elements = static_cast<int>(coefficients.size(0));
    arguments.n_blocks = static_cast<int>(coefficients.size(1));
    arguments.n_terms = static_cast<int>(coefficients.size(2));
    arguments.n_outputs = static_cast<int>(n_outputs);
    arguments.features = features.const_data_ptr();
    arguments.types = reinterpret_cast<const long long*>(types.const_data_ptr<std::int64_t>());
    arguments.terms = terms.const_data_ptr<int>();
    arguments.coefficients = coefficients.const_data_ptr();
  }

  /// @param columns  of shared memory for each thread
  void launch(const char* name, int columns) const {
    const std::string source = symmetric_contraction_arguments_text + real_type(features.scalar_type()) + warp_text +
                               "constexpr int degree = " + std::to_string(degree) +
                               ", channel_block = " + std::to_string(channel_block) + ";\n" +
                               symmetric_contraction_text;
    const std::int64_t n_threads = arguments.n_atoms * arguments.n_blocks * channel_block;
    const std::int64_t bytes_per_thread = columns * (arguments.n_components + 1) * features.element_size();
    int threads = threads_per_block;
    while (threads > 32 && threads * bytes_per_thread > 48 * 1024) threads /= 2;
    TORCH_CHECK(threads * bytes_per_thread <= 48 * 1024, "symmetric_contraction: ", arguments.n_components,
                " components do not fit a GPU's shared memory");
    runtime()
        .kernel(source, name, features.device())
        ->launch((n_threads + threads - 1) / threads, threads, static_cast<int>(threads * bytes_per_thread),
                 &arguments);
  }
};

}  // namespace

Tensor symmetric_contraction(const Tensor& features, const Tensor& types, const Tensor& factors, const Tensor& terms,
                             std::int64_t n_outputs, const Tensor& coefficients) {
  const c10::DeviceGuard guard(features.device());
  Call call(features, types, factors, terms, n_outputs, coefficients);
  Tensor outputs = at::zeros({features.size(0), n_outputs, features.size(2)}, features.options());
  call.arguments.outputs = outputs.mutable_data_ptr();
  call.launch("contraction", 1);
  return outputs;
}

Tensor symmetric_contraction_backward(const Tensor& gradient, const Tensor& features, const Tensor& types,
                                      const Tensor& factors, const Tensor& terms, const Tensor& coefficients) {
  const c10::DeviceGuard guard(features.device());
  TORCH_CHECK(gradient.dim() == 3 && gradient.size(0) == features.size(0) && gradient.size(2) == features.size(2) &&
                  gradient.scalar_type() == features.scalar_type(),
              "symmetric_contraction_backward: the gradient has the wrong shape or type");
  Call call(features, types, factors, terms, gradient.size(1), coefficients);
  const Tensor dense = gradient.contiguous();
  Tensor result = at::empty(call.features.sizes(), features.options());
  call.arguments.output_gradients = dense.const_data_ptr();
  call.arguments.features_gradient = result.mutable_data_ptr();
  call.launch("contraction_to_features", 2);
  return result;
}

}  // namespace mlip::gpu
