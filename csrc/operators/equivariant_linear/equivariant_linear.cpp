// The operator `mlip::equivariant_linear`: a linear layer of all irreps, of one or more inputs, in one call.
//
//   equivariant_linear(inputs, types, matrices, element_matrices, bias, blocks, products, as_rows) -> outputs
//
//   inputs            blocks [n_atoms, 2l+1, channels in]
//   types             int64 [n_atoms], the element of each atom; [0] where nothing depends on it
//   matrices          [2, n_values]: the matrices [channels in, channels out] of the products one behind the other, and
//                     their transposes likewise. Constants, without a gradient
//   element_matrices  [n_elements, 2, n_values]: the same of the products whose matrices depend on the element
//   bias              [0, 0], or [1 or n_elements, sum of the blocks' values]: added to the result
//   blocks            int[], two numbers for each block of the result: 2l+1 and channels
//   products          int[], four numbers each: input, block, 1 if the matrix depends on the element, channels in.
//                     Block b is the sum of its products, zero if it has none
//   outputs           the blocks [n_atoms, 2l+1, channels]; or, as rows, one tensor [n_atoms, sum of the blocks'
//   values]
//
// A matrix meets every component alike. On the CPU a kernel of ours multiplies (see equivariant_linear_kernels.h), the
// results of several products are added up in place, and threads share the atoms. Other devices call torch's products
// of matrices, which add up in place likewise (see products_of_torch.h). The tests use a reference that autograd
// differentiates, `mlip::equivariant_linear_reference`.
#include <ATen/Parallel.h>
#include <torch/script.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/native_operator.h"
#include "operators/autograd.h"
#include "operators/equivariant_linear/equivariant_linear_kernels.h"
#include "operators/equivariant_linear/equivariant_linear_plan.h"
#include "operators/equivariant_linear/products_of_torch.h"
#include "operators/instruction_sets.h"
#include "operators/new_tensor.h"

namespace mlip {
namespace {

using at::Tensor;
using Plan = EquivariantLinearPlan;

// ---- reference -----------------------------------------------------------------------------------------------

/// The same from torch's operators: any device, differentiable, and slow.
std::vector<Tensor> reference(at::TensorList inputs, const Tensor& types, const Tensor& matrices,
                              const Tensor& element_matrices, const Tensor& bias, at::IntArrayRef packed_blocks,
                              at::IntArrayRef packed_products, bool as_rows) {
  static const auto element_linear = c10::Dispatcher::singleton()
                                         .findSchemaOrThrow("mlip::element_linear", "")
                                         .typed<Tensor(const Tensor&, const Tensor&, const Tensor&)>();
  const Plan plan(packed_blocks, packed_products, static_cast<std::int64_t>(inputs.size()), matrices, element_matrices,
                  bias);
  plan.check_inputs(inputs, types, matrices);
  std::vector<Tensor> sums(plan.blocks.size());
  const auto add = [&](std::size_t block, const Tensor& term) {
    sums[block] = sums[block].defined() ? sums[block] + term : term;
  };
  for (const Plan::Product& product : plan.products) {
    const std::int64_t channels = plan.blocks[product.block].channels, n_values = product.channels_in * channels;
    const auto matrix = [&](const Tensor& flat) {
      return flat.narrow(-1, product.first, n_values).unflatten(-1, {product.channels_in, channels});
    };
    const Tensor& input = inputs[product.input];
    add(product.block, product.of_element ? element_linear.call(input, types, matrix(element_matrices.select(1, 0)))
                                          : at::matmul(input, matrix(matrices.select(0, 0))));
  }
  for (std::size_t b = 0; b < plan.blocks.size(); ++b) {
    const Plan::Block& block = plan.blocks[b];
    if (bias.size(0) > 0) {
      const Tensor own = bias.narrow(1, block.first, block.size()).unflatten(1, {block.components, block.channels});
      add(b, bias.size(0) == 1 ? own.expand_symint({inputs[0].sym_size(0), -1, -1}) : own.index_select(0, types));
    }
    if (!sums[b].defined())
      sums[b] = at::zeros_symint({inputs[0].sym_size(0), block.components, block.channels}, inputs[0].options());
  }
  if (!as_rows) return sums;
  for (Tensor& sum : sums) sum = sum.flatten(1);
  return {at::cat(sums, 1)};
}

// ---- CPU -----------------------------------------------------------------------------------------------------

/// Positions of the atoms of each element, where there are several elements. Checks every type: the kernels trust them.
struct AtomsByElement {
  std::vector<std::int64_t> first;  ///< [n_elements + 1]
  std::vector<std::int64_t> order;  ///< [n_atoms], empty where all atoms are of one element

  /// @param wanted false: nothing depends on the elements, and types are not read
  AtomsByElement(const Tensor& types, std::int64_t n_elements, std::int64_t n_atoms, bool wanted)
      : first(n_elements + 1, 0) {
    if (!wanted) return;
    TORCH_CHECK(types.size(0) == n_atoms, "equivariant_linear: ", types.size(0), " types for ", n_atoms, " atoms");
    const std::int64_t* type = types.data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < n_atoms; ++i) {
      TORCH_CHECK_INDEX(type[i] >= 0 && type[i] < n_elements, "equivariant_linear: type ", type[i], " is not one of ",
                        n_elements, " elements");
      ++first[type[i] + 1];
    }
    const bool several = std::count(first.begin(), first.end(), 0) < n_elements;
    std::partial_sum(first.begin(), first.end(), first.begin());
    if (!several) return;
    order.resize(n_atoms);
    std::vector<std::int64_t> next(first.begin(), first.end() - 1);
    for (std::int64_t i = 0; i < n_atoms; ++i) order[next[type[i]]++] = i;
  }
};

/// What products read or write: the channels of an atom's components one behind the other.
template <typename T>
struct Side {
  T* data;              ///< null where nobody wants it
  std::int64_t stride;  ///< from atom to atom
  std::int64_t size;    ///< values of an atom
  bool written = false;
};

/// One pass, forward or back: every product from its side of `from` to its side of `to`.
template <typename T>
class Pass {
 public:
  Pass(const Plan& plan, bool back, const Tensor& types, const Tensor& matrices, const Tensor& element_matrices,
       const Tensor& bias, std::int64_t n_atoms)
      : plan_(plan),
        back_(back),
        n_atoms_(n_atoms),
        of_elements_(plan.of_elements()),
        types_(types.contiguous()),
        matrices_(matrices.contiguous()),
        element_matrices_(element_matrices.contiguous()),
        bias_(bias.contiguous()),
        elements_(types_, of_elements_ ? element_matrices_.size(0) : bias_.size(0), n_atoms,
                  of_elements_ || bias_.size(0) > 1) {}

  /// @param from, to  sides of the inputs and the blocks, or of the blocks and the inputs on the way back
  void run(const std::vector<Side<T>>& from, const std::vector<Side<T>>& to) const {
    std::int64_t per_atom = 1;  // multiplications
    for (const Plan::Product& product : plan_.products)
      per_atom += product.channels_in * plan_.blocks[product.block].size();
    constexpr std::int64_t least_work = 1 << 18;  // less is not worth waking a thread
    at::parallel_for(0, n_atoms_, 1 + least_work / per_atom, [&](std::int64_t begin, std::int64_t end) {
      // Atom by atom the results stay in the cache between products; element by element the matrices do.
      const std::int64_t some = of_elements_ ? n_atoms_ : 64;
      for (std::int64_t first = begin; first < end; first += some)
        run_range(from, to, first, std::min(first + some, end));
    });
  }

 private:
  void run_range(const std::vector<Side<T>>& from, std::vector<Side<T>> to, std::int64_t begin,
                 std::int64_t end) const {
    const std::int64_t* const order = elements_.order.empty() ? nullptr : elements_.order.data();
    if (!back_ && bias_.size(0) > 0) add_bias(to, order, begin, end);
    for (const Plan::Product& product : plan_.products) {
      const Plan::Block& block = plan_.blocks[product.block];
      const Side<T>& source = from[back_ ? product.block : product.input];
      Side<T>& target = to[back_ ? product.input : product.block];
      if (target.data == nullptr) continue;
      RowProduct<T> rows{source.data,      source.stride,       nullptr,        target.data,   target.stride,
                         block.components, product.channels_in, block.channels, target.written};
      if (back_) std::swap(rows.inner, rows.columns);
      target.written = true;
      const auto multiply = [&](const T* matrix, std::int64_t first, std::int64_t last) {
        rows.b = matrix + product.first;
        if (first < last) kernels().multiply(rows, order, first, last);
      };
      if (!product.of_element) {
        multiply(matrices_.const_data_ptr<T>() + (back_ ? matrices_.size(1) : 0), begin, end);
        continue;
      }
      const std::int64_t n_values = element_matrices_.size(2);
      for (std::int64_t e = 0; e < element_matrices_.size(0); ++e)
        multiply(element_matrices_.const_data_ptr<T>() + (2 * e + back_) * n_values,
                 std::max(begin, elements_.first[e]), std::min(end, elements_.first[e + 1]));
    }
    for (const Side<T>& side : to)
      for (std::int64_t k = begin; side.data != nullptr && !side.written && k < end; ++k)
        std::fill_n(side.data + (order != nullptr ? order[k] : k) * side.stride, side.size, T(0));
  }

  void add_bias(std::vector<Side<T>>& to, const std::int64_t* order, std::int64_t begin, std::int64_t end) const {
    const std::int64_t* const type = types_.const_data_ptr<std::int64_t>();
    for (std::size_t b = 0; b < to.size(); ++b) {
      for (std::int64_t k = begin; k < end; ++k) {
        const std::int64_t atom = order != nullptr ? order[k] : k, row = bias_.size(0) > 1 ? type[atom] : 0;
        std::copy_n(bias_.const_data_ptr<T>() + row * plan_.width + plan_.blocks[b].first, to[b].size,
                    to[b].data + atom * to[b].stride);
      }
      to[b].written = true;
    }
  }

  static const EquivariantLinearKernels<T>& kernels() { return *instruction_set().kernels<T>().equivariant_linear; }

  const Plan& plan_;
  bool back_;
  std::int64_t n_atoms_;
  bool of_elements_;
  Tensor types_, matrices_, element_matrices_, bias_;
  AtomsByElement elements_;
};

/// Of the blocks of a result, or of its gradients.
template <typename T>
std::vector<Side<T>> sides_of_blocks(const Plan& plan, const std::vector<Tensor>& tensors, bool as_rows) {
  std::vector<Side<T>> sides;
  for (std::size_t b = 0; b < plan.blocks.size(); ++b) {
    const Plan::Block& block = plan.blocks[b];
    sides.push_back(as_rows ? Side<T>{tensors[0].data_ptr<T>() + block.first, plan.width, block.size()}
                            : Side<T>{tensors[b].data_ptr<T>(), block.size(), block.size()});
  }
  return sides;
}

void forward_on_cpu(const Plan& plan, at::TensorList inputs, const Tensor& types, const Tensor& matrices,
                    const Tensor& element_matrices, const Tensor& bias, bool as_rows, std::vector<Tensor>& outputs) {
  AT_DISPATCH_FLOATING_TYPES(matrices.scalar_type(), "equivariant_linear", [&] {
    std::vector<Side<scalar_t>> from;
    for (const Tensor& input : inputs) {
      const std::int64_t size = input.size(1) * input.size(2);
      from.push_back({input.data_ptr<scalar_t>(), size, size});
    }
    Pass<scalar_t>(plan, false, types, matrices, element_matrices, bias, inputs[0].size(0))
        .run(from, sides_of_blocks<scalar_t>(plan, outputs, as_rows));
  });
}

/// @param sums dense; undefined for those that nobody wants
/// @param written whether a sum holds something that products are added to
void backward_on_cpu(const Plan& plan, const std::vector<Tensor>& gradients, const Tensor& types,
                     const Tensor& matrices, const Tensor& element_matrices, const Tensor& no_bias, bool as_rows,
                     const std::vector<Tensor>& sums, const std::vector<bool>& written) {
  AT_DISPATCH_FLOATING_TYPES(matrices.scalar_type(), "equivariant_linear_backward", [&] {
    std::vector<Side<scalar_t>> to;
    for (std::size_t k = 0; k < sums.size(); ++k) {
      const std::int64_t size = sums[k].defined() ? sums[k].size(1) * sums[k].size(2) : 0;
      to.push_back({sums[k].defined() ? sums[k].data_ptr<scalar_t>() : nullptr, size, size, written[k]});
    }
    Pass<scalar_t>(plan, true, types, matrices, element_matrices, no_bias, gradients[0].size(0))
        .run(sides_of_blocks<scalar_t>(plan, gradients, as_rows), to);
  });
}

// ---- any device ----------------------------------------------------------------------------------------------

std::vector<Tensor> dense(at::TensorList tensors) {
  std::vector<Tensor> result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.contiguous());
  return result;
}

std::vector<Tensor> forward_of(const Plan& plan, at::TensorList given, const Tensor& types, const Tensor& matrices,
                               const Tensor& element_matrices, const Tensor& bias, bool as_rows) {
  plan.check_inputs(given, types, matrices);
  const std::vector<Tensor> inputs = dense(given);
  const std::int64_t n_atoms = inputs[0].size(0);
  std::vector<Tensor> outputs;
  if (as_rows) outputs.push_back(new_tensor({n_atoms, plan.width}, inputs[0]));
  for (std::size_t b = 0; !as_rows && b < plan.blocks.size(); ++b)
    outputs.push_back(new_tensor({n_atoms, plan.blocks[b].components, plan.blocks[b].channels}, inputs[0]));
  if (matrices.is_cpu())
    forward_on_cpu(plan, inputs, types, matrices, element_matrices, bias, as_rows, outputs);
  else
    forward_of_torch(plan, inputs, types, matrices, element_matrices, bias, as_rows, outputs);
  return outputs;
}

std::vector<Tensor> forward(at::TensorList inputs, const Tensor& types, const Tensor& matrices,
                            const Tensor& element_matrices, const Tensor& bias, at::IntArrayRef packed_blocks,
                            at::IntArrayRef packed_products, bool as_rows) {
  const Plan plan(packed_blocks, packed_products, static_cast<std::int64_t>(inputs.size()), matrices, element_matrices,
                  bias);
  return forward_of(plan, inputs, types, matrices, element_matrices, bias, as_rows);
}

/// @param input_sizes components and channels of each input
/// @param wanted numbers of the inputs whose gradients are made
/// @param sums [number of inputs]: dense tensors that they are added to, undefined for those that are to be made
void backward_of(const Plan& plan, at::TensorList gradients, at::IntArrayRef wanted, at::IntArrayRef input_sizes,
                 const Tensor& types, const Tensor& matrices, const Tensor& element_matrices, const Tensor& no_bias,
                 bool as_rows, std::vector<Tensor>& sums) {
  Plan::check_types(types);
  plan.check_gradients(gradients, as_rows, matrices);
  std::vector<bool> written;
  for (const Tensor& sum : sums) written.push_back(sum.defined());
  for (const std::int64_t k : wanted)
    if (!sums[k].defined())
      sums[k] = new_tensor({gradients[0].size(0), input_sizes[2 * k], input_sizes[2 * k + 1]}, matrices);
  if (matrices.is_cpu())
    backward_on_cpu(plan, dense(gradients), types, matrices, element_matrices, no_bias, as_rows, sums, written);
  else
    backward_of_torch(plan, dense(gradients), types, matrices, element_matrices, as_rows, sums, written);
}

/// -> gradients of the inputs whose number is in `wanted`, in its order
std::vector<Tensor> backward(at::TensorList gradients, at::IntArrayRef wanted, at::IntArrayRef input_sizes,
                             const Tensor& types, const Tensor& matrices, const Tensor& element_matrices,
                             at::IntArrayRef packed_blocks, at::IntArrayRef packed_products, bool as_rows) {
  const std::int64_t n_inputs = static_cast<std::int64_t>(input_sizes.size()) / 2;
  const Tensor no_bias = at::empty({0, 0}, matrices.options());
  const Plan plan(packed_blocks, packed_products, n_inputs, matrices, element_matrices, no_bias);
  std::vector<Tensor> sums(n_inputs), results;
  backward_of(plan, gradients, wanted, input_sizes, types, matrices, element_matrices, no_bias, as_rows, sums);
  for (const std::int64_t k : wanted) results.push_back(sums[k]);
  return results;
}

// ---- autograd ------------------------------------------------------------------------------------------------

std::vector<Tensor> forward_autograd(at::TensorList inputs, const Tensor& types, const Tensor& matrices,
                                     const Tensor& element_matrices, const Tensor& bias, at::IntArrayRef blocks,
                                     at::IntArrayRef products, bool as_rows) {
  std::vector<std::int64_t> sizes;
  for (const Tensor& input : inputs)  // sizes() would make the number of atoms a constant of a trace
    for (const std::int64_t dimension : {1, 2}) sizes.push_back(fixed_size(input, dimension));
  const auto forward = [&]() -> Recorded {
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("mlip::equivariant_linear", "").typed<decltype(mlip::forward)>();
    return {op.call(inputs, types, matrices, element_matrices, bias, blocks, products, as_rows),
            {types, matrices, element_matrices}};
  };
  return record(inputs, forward,
                [sizes = std::move(sizes), blocks = blocks.vec(), products = products.vec(), as_rows](
                    const auto& gradients, const auto& kept, const auto& wanted) -> std::vector<Tensor> {
                  const LastDerivative only("equivariant_linear");
                  static const auto op = c10::Dispatcher::singleton()
                                             .findSchemaOrThrow("mlip::equivariant_linear_backward", "")
                                             .typed<decltype(mlip::backward)>();
                  std::vector<std::int64_t> places;
                  for (std::size_t k = 0; k < wanted.size(); ++k)
                    if (wanted[k]) places.push_back(static_cast<std::int64_t>(k));
                  const auto found =
                      op.call(gradients, places, sizes, kept[0], kept[1], kept[2], blocks, products, as_rows);
                  std::vector<Tensor> results(wanted.size());
                  for (std::size_t k = 0; k < places.size(); ++k) results[places[k]] = found[k];
                  return results;
                });
}

// ---- without autograd ----------------------------------------------------------------------------------------

class NativeEquivariantLinear : public NativeOperator {
 public:
  NativeEquivariantLinear(Plan plan, Tensor matrices, Tensor element_matrices, Tensor bias, bool as_rows)
      : plan_(std::move(plan)),
        matrices_(std::move(matrices)),
        element_matrices_(std::move(element_matrices)),
        bias_(std::move(bias)),
        no_bias_(at::empty({0, 0}, bias_.options())),
        as_rows_(as_rows) {}

  Tensors forward(Tensors inputs, std::int64_t, Kept* kept) const override {
    const Tensor types = std::move(inputs.back());
    inputs.pop_back();
    if (kept != nullptr) {
      kept->tensors = {types};
      for (const Tensor& input : inputs) kept->sizes.insert(kept->sizes.end(), {input.size(1), input.size(2)});
    }
    return forward_of(plan_, inputs, types, matrices_, element_matrices_, bias_, as_rows_);
  }

  void backward(const Tensors& gradients, const Kept& kept, const std::vector<bool>& wanted,
                Tensors& sums) const override {
    const std::size_t n_inputs = sums.size() - 1;  // the last ones are types
    std::vector<std::int64_t> numbers;
    Tensors targets(n_inputs);
    for (std::size_t k = 0; k < n_inputs; ++k) {
      if (!wanted[k]) continue;
      numbers.push_back(static_cast<std::int64_t>(k));
      if (is_own(sums[k])) targets[k] = std::move(sums[k]);
    }
    backward_of(plan_, gradients, numbers, kept.sizes, kept.tensors[0], matrices_, element_matrices_, no_bias_,
                as_rows_, targets);
    for (const std::int64_t k : numbers) add_gradient(sums[k], std::move(targets[k]));
  }

  std::size_t n_outputs() const override { return as_rows_ ? 1 : plan_.blocks.size(); }

 private:
  Plan plan_;
  Tensor matrices_, element_matrices_, bias_, no_bias_;
  bool as_rows_;
};

const RegisterNative native("mlip::equivariant_linear",
                            [](const std::vector<c10::IValue>& arguments,
                               at::Device) -> std::unique_ptr<NativeOperator> {
                              for (std::size_t k = 0; k < arguments.size(); ++k)
                                if (arguments[k].isNone() != (k < 2)) return nullptr;
                              const Tensor matrices = arguments[2].toTensor(),
                                           element_matrices = arguments[3].toTensor();
                              const Tensor bias = arguments[4].toTensor();
                              const auto blocks = arguments[5].toIntVector(), products = arguments[6].toIntVector();
                              std::int64_t n_inputs = 0;
                              for (std::size_t k = 0; k < products.size(); k += 4)
                                n_inputs = std::max(n_inputs, products[k] + 1);
                              return std::make_unique<NativeEquivariantLinear>(
                                  Plan(blocks, products, n_inputs, matrices, element_matrices, bias), matrices,
                                  element_matrices, bias, arguments[7].toBool());
                            });

}  // namespace
}  // namespace mlip

// `mlip` itself is opened in ghost_gather.cpp.
TORCH_LIBRARY_FRAGMENT(mlip, library) {
  library.def(
      "equivariant_linear(Tensor[] inputs, Tensor types, Tensor matrices, Tensor element_matrices, Tensor bias, "
      "int[] blocks, int[] products, bool as_rows) -> Tensor[]");
  library.def(
      "equivariant_linear_backward(Tensor[] gradients, int[] wanted, int[] input_sizes, Tensor types, "
      "Tensor matrices, Tensor element_matrices, int[] blocks, int[] products, bool as_rows) -> Tensor[]");
  library.def(
      "equivariant_linear_reference(Tensor[] inputs, Tensor types, Tensor matrices, Tensor element_matrices, "
      "Tensor bias, int[] blocks, int[] products, bool as_rows) -> Tensor[]",
      mlip::reference);
}

TORCH_LIBRARY_IMPL(mlip, CompositeExplicitAutograd, library) {
  library.impl("equivariant_linear", mlip::forward);
  library.impl("equivariant_linear_backward", mlip::backward);
}

TORCH_LIBRARY_IMPL(mlip, Autograd, library) { library.impl("equivariant_linear", mlip::forward_autograd); }
